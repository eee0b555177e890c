//! The command line: what can be typed, and which part of the agent it calls.
//!
//! Exit status: 0 done, 1 failed (with the reason and the help on the standard error), 2 not a command.

mod check;
mod detach;
mod host;
mod reading;
mod reload;
mod run;
mod status;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{self, default_socket};

/// What can be typed.
#[derive(Debug, Parser)]
#[command(name = "lb", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
#[command(propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "A layer-4 load balancer in XDP: the agent, and the commands that speak to it";

const LONG_ABOUT: &str = "\
A layer-4 load balancer for TCP and UDP whose data plane is an XDP program in the kernel.

`lb run` is the agent. It reads a configuration, attaches the program to network interfaces, checks the health of the \
backends, finds the way to them, and keeps the program's maps equal to what the configuration asks for. Packets never \
wait for it: a balancer whose agent is gone goes on with its last good state, and the next agent adopts what it finds.

The other commands check a configuration, show what the balancer does, have the agent read its configuration again, \
and take the balancer out of the kernel.";

const AFTER_HELP: &str = "\
Examples:
  lb check /etc/lb/lb.toml          say what is wrong with a configuration
  lb run --config /etc/lb/lb.toml   run the agent in the foreground
  lb status                         services, backends, flows, rates
  lb status --watch                 the same, every two seconds
  lb status --json | jq .drops      for programs
  lb reload                         apply the changed file, and say what changed or why not
  lb detach                         take everything out of the kernel after a `kill -9`

Files:
  /etc/lb/lb.toml                   the configuration of the systemd unit; every key stands in
                                    `lb check --help`
  /run/lb/<instance>.sock           the agent's API, HTTP and JSON under /v1
  /sys/fs/bpf/lb/<instance>/        the pinned links and maps of the program

Signals of the agent:
  SIGHUP            read the configuration again; a bad one changes nothing and is logged
  SIGTERM, SIGINT   detach, remove pins and managed addresses, and end
  SIGKILL           ends the agent alone: traffic goes on, and the next start adopts it

Environment:
  NO_COLOR          no colour on a terminal

Exit status:
  0 done, 1 failed, 2 not a command";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground
    Run(run::Arguments),
    /// Check a configuration without touching anything
    Check(check::Arguments),
    /// Show services, backends, flows and rates
    Status(status::Arguments),
    /// Have the agent read its configuration again, and say what changed
    Reload(reload::Arguments),
    /// Take the balancer out of the kernel where no agent runs
    Detach(detach::Arguments),
}

/// Which agent a command speaks to.
#[derive(Clone, Debug, clap::Args)]
struct Target {
    /// Name of the instance, as in the configuration
    #[arg(long, value_name = "NAME", value_parser = instance, default_value = config::DEFAULT_INSTANCE)]
    instance: String,
    /// Socket of the agent, where its configuration names another than /run/lb/<instance>.sock
    #[arg(long, value_name = "PATH", conflicts_with = "instance")]
    socket: Option<PathBuf>,
    /// The agent that runs this configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["instance", "socket"])]
    config: Option<PathBuf>,
}

impl Target {
    async fn socket(&self) -> anyhow::Result<PathBuf> {
        match (&self.config, &self.socket) {
            (Some(config), _) => reading::socket(config).await,
            (None, Some(socket)) => Ok(socket.clone()),
            (None, None) => Ok(default_socket(&self.instance)),
        }
    }
}

fn instance(name: &str) -> Result<String, &'static str> {
    if config::is_instance(name) {
        Ok(name.to_owned())
    } else {
        Err("use 1 to 32 of a to z, 0 to 9 and -")
    }
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        // Its log is where it says what went wrong.
        Command::Run(arguments) => return run::run(&arguments),
        Command::Check(arguments) => block_on(check::check(&arguments)),
        Command::Status(arguments) => block_on(status::status(&arguments)),
        Command::Reload(arguments) => block_on(reload::reload(&arguments)),
        Command::Detach(arguments) => block_on(detach::detach(&arguments)),
    };
    match done {
        Ok(code) => code,
        // Whoever read the output has had enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("lb: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Commands that ask one question need one thread.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(command)
}

/// Writes a line to the standard error. Where nobody reads it, there is nobody left to tell; the exit status says it too.
fn complain(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Writes to the standard output.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests;
