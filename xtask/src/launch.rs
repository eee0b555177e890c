//! Programs of the harness, which make network namespaces and load eBPF: built as the user, run as root.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::{root, setup};

/// Does what is needed before the harness' program `name` can run, and gives its command.
pub(crate) fn prepare(name: &str, profile: Profile, arguments: &[String]) -> Result<Command> {
    setup::ensure()?;
    build::workspace(profile)?;
    let mut command = root::command(build::program(name, profile)?)?;
    agent(&mut command, profile)?.args(arguments);
    Ok(command)
}

/// Like [`prepare`], and runs it in this program's place: Ctrl-C and the exit status are between it and the terminal.
pub(crate) fn replace(name: &str, profile: Profile, arguments: &[String]) -> Result<()> {
    let mut command = prepare(name, profile, arguments)?;
    Err(command.exec()).with_context(|| format!("can't run {command:?}"))
}

/// Tells the harness, which would otherwise build it, where the agent is.
pub(crate) fn agent(command: &mut Command, profile: Profile) -> Result<&mut Command> {
    Ok(command.env(xtask::variables::AGENT, build::program("lb", profile)?))
}
