//! `lb status`.

mod layout;
mod table;
mod units;

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use super::{Target, print};
use crate::{admin::Client, status::StatusReport};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A line for each service, and under it one for each of its backends (->): state with the time it has lasted and the \
reason, flows now, new flows, packets and bytes a second over both directions, and the same since the program was \
first loaded. The numbers are those of the kernel's maps. Packets are counted for each service and for each backend, and \
not for each pair of them: a backend that several services use has a line of its own below, and - in theirs.

States of a backend: up and down by its checks, checking until the first one has finished, unchecked where none is \
configured, removed while flows still use it. Where a backend is up and no packet comes back from it, its reason is what \
to do about that.

With --json the standard output is the whole report as one object, with --watch one object a line.")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) target: Target,
    /// The whole report as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, every SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "use a number of seconds")?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("use 0.1 to 86400")
    }
}

pub(super) async fn status(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(arguments.target.socket().await?);
    let Some(period) = arguments.watch else {
        let report = client.status().await?;
        print(&if arguments.json {
            json(&report, true)?
        } else {
            layout::render(&report, colour())
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shown = match client.status().await {
            Ok(report) if arguments.json => json(&report, false)?,
            Ok(report) => page(&layout::render(&report, colour())),
            // For a program that reads along, the end of the output is the plainest sign that there is no more.
            Err(error) if arguments.json => return Err(error.into()),
            // An agent that is being restarted comes back.
            Err(error) => page(&format!("lb: {error}\n")),
        };
        print(&shown)?;
    }
}

fn json(report: &StatusReport, pretty: bool) -> anyhow::Result<String> {
    let text = if pretty {
        serde_json::to_string_pretty(report)
    } else {
        serde_json::to_string(report)
    };
    Ok(text.context("the report as JSON")? + "\n")
}

fn colour() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The text on a cleared screen, or after an empty line where there is no screen.
fn page(text: &str) -> String {
    if io::stdout().is_terminal() {
        format!("\x1b[H\x1b[2J{text}")
    } else {
        format!("{text}\n")
    }
}
