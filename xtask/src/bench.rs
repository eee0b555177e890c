//! `cargo xtask bench`: the harness' program `bench`, optimised.

use anyhow::Result;

use crate::build::Profile;
use crate::launch;

/// Measures what the balancer costs
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For the program that measures; `-- --help` names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<()> {
        launch::replace("bench", Profile::Release, &self.arguments)
    }
}
