//! `cargo xtask kernels`: the harness' program `kernels`, with kernels of Debian's.

mod package;

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::{launch, setup};

/// The lines of kernels that Debian 12 carries, the oldest first.
const LINES: [&str; 2] = ["6.1", "6.12"];

/// Runs the product on older kernels, in QEMU: loads every program, attaches, serves, restarts, reloads
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whether the program loads and serves, and no more
    #[arg(long)]
    quick: bool,
    /// Only this line of kernels, the newest of Debian's when it was first used
    #[arg(long, value_name = "LINE", value_parser = LINES)]
    kernel: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<()> {
        let lines = self.kernel.iter().map(String::as_str).collect::<Vec<_>>();
        let lines = if lines.is_empty() { &LINES } else { &lines[..] };
        let mut command = prepare(lines, self.quick)?;
        Err(command.exec()).with_context(|| format!("can't run {command:?}"))
    }
}

/// What CI does: the oldest kernel loads the program and serves.
pub(crate) fn gate() -> Result<()> {
    build::run(&mut prepare(&LINES[..1], true)?)
}

/// The command that runs these lines of kernels.
///
/// A full run takes the agent as it is shipped to other machines, optimised and static. A quick one takes the one that
/// the suites have built, with the libraries that it needs: what runs in the kernel is the same object in both, and a
/// build of its own would take longer than all the rest.
fn prepare(lines: &[&str], quick: bool) -> Result<Command> {
    setup::ensure()?;
    let mut arguments = Vec::new();
    for line in lines {
        arguments.push(package::directory(line)?.display().to_string());
    }
    if quick {
        arguments.push("--quick".to_owned());
    }
    let mut command = launch::prepare("kernels", Profile::Dev, &arguments)?;
    if !quick {
        command.env(xtask::variables::AGENT, build::static_agent()?);
    }
    Ok(command)
}
