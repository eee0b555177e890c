//! Root's rights, for the single command that needs them.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::programs;

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What goes in front of a command line that must run as root; nothing where we are root.
pub(crate) fn prefix() -> Result<Vec<String>> {
    if is_root() {
        return Ok(Vec::new());
    }
    let sudo = programs::find("sudo").context("this needs root, and there is no sudo here")?;
    Ok(vec![
        sudo.display().to_string(),
        "--preserve-env".to_owned(),
        "--".to_owned(),
    ])
}

/// `program` as root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let prefix = prefix()?;
    let mut words = prefix.iter().map(OsStr::new).chain([program.as_ref()]);
    let mut command = Command::new(words.next().context("an empty command")?);
    command.args(words);
    Ok(command)
}
