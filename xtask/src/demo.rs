//! `cargo xtask demo`: the harness' program `demo`.

use anyhow::Result;

use crate::build::Profile;
use crate::launch;

/// Shows the balancer at work: a client, the balancer and two web servers in network namespaces, removed afterwards
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For the demo: `--keep` leaves everything running and prints what to try
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<()> {
        launch::replace("demo", Profile::Dev, &self.arguments)
    }
}
