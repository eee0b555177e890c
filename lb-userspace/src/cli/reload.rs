//! `lb reload`.

use std::process::ExitCode;

use super::{Target, complain, print};
use crate::admin::{Applied, Client};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The same as SIGHUP, and says what came of it: a line for each change, or every error; warnings go to the standard error. A \
configuration with an error changes nothing. Connections to backends that stay are not touched by any reload.

What can't change while the agent runs is refused: `instance`, `pin_root`, `socket`, `flow_entries`.")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(super) async fn reload(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(arguments.target.socket().await?);
    let Applied { applied, warnings } = client.reload().await?;
    for line in warnings {
        complain(&line);
    }
    if applied.is_empty() {
        print("nothing to change\n")?;
    }
    for line in applied {
        print(&format!("{line}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
