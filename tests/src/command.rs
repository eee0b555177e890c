//! Running a command to its end: its output, or an error that shows the command and what it said.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// What a command that succeeded wrote to its standard output.
///
/// # Errors
/// Where it cannot be started or does not exit with 0: the command line and all its output.
pub fn run(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = output(command)?;
    if !output.status.success() {
        bail!("`{line}`: {}\n{}", output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command did, whether it succeeded or not.
///
/// # Errors
/// Where it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let line = shown(command);
    command
        .output()
        .with_context(|| format!("cannot start `{line}` (installed by `cargo xtask setup`)"))
}

/// Runs a command given as one line, split at spaces.
///
/// # Errors
/// As [`run`].
pub fn line(line: &str) -> Result<String> {
    run(&mut words(line))
}

/// A command given as one line, split at spaces.
#[must_use]
pub fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Both outputs of a command, trimmed.
#[must_use]
pub fn said(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    both.join("\n").trim().to_owned()
}

/// The command as it would be typed.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
