//! `cargo xtask bench`: the harness' program `bench`, optimised.

use anyhow::Result;

use crate::build::{self, Profile};
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

/// Fails where a change makes the balancer slower than the figures in the tree allow.
///
/// By the programs that the suites have built: what it measures runs in the kernel, whose programs are optimised in either
/// profile, and a build of its own would take longer than the measurement.
pub(crate) fn gate() -> Result<()> {
    let arguments = ["--gate".to_owned()];
    build::run(&mut launch::prepare("bench", Profile::Dev, &arguments)?)
}
