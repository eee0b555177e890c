//! `lb check`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::{complain, host, is_broken_pipe, print, reading};
use crate::{
    config::{Checked, Diagnostics, Severity},
    model::Model,
};

// Not wrapped at the width of the terminal: a comment of the example that is broken can't be pasted into a file.
#[derive(Debug, clap::Args)]
#[command(term_width = 0)]
#[command(after_long_help = concat!("\
Every error is named at once, each with its file, line and column, the line itself, and
what to do about it. Warnings are named too and do not make the check fail; of many of a
kind the first, and how many there are. Where all interfaces of the file exist, so do
backends that packets leave to by another one.

With --json the standard output is one array of objects: severity (error or warning),
file, line, column, end_column, text (of the line), message, help; the four in the middle
are missing where a finding is about the whole file. Every warning is one of them.

A configuration that names every key:

", include_str!("../../examples/lb.toml")))]
pub(super) struct Arguments {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Findings as a JSON array on the standard output
    #[arg(long)]
    json: bool,
}

pub(super) async fn check(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut checked = reading::configuration(&arguments.file).await;
    if let Ok(Checked { model, warnings }) = &mut checked {
        let file = arguments.file.display().to_string();
        warnings.0.extend(host::warnings(&file, model).await);
    }
    match show(arguments, &checked) {
        // The verdict is the same, however much of it was read.
        Err(error) if is_broken_pipe(&error) => {}
        shown => shown?,
    }
    Ok(if checked.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(arguments: &Arguments, checked: &Result<Checked, Diagnostics>) -> anyhow::Result<()> {
    let findings = match checked {
        Ok(Checked { warnings, .. }) => warnings,
        Err(findings) => findings,
    };
    if arguments.json {
        let json = serde_json::to_string_pretty(&findings.0).context("findings as JSON")?;
        return Ok(print(&format!("{json}\n"))?);
    }
    if !findings.0.is_empty() {
        complain(&findings.to_string());
    }
    match checked {
        Ok(Checked { model, .. }) => {
            let (file, contents) = (arguments.file.display(), contents(model));
            print(&format!("{file}: ok: {contents}\n"))?;
        }
        Err(_) => complain(&verdict(findings)),
    }
    Ok(())
}

/// `3 errors, 1 warning`.
pub(super) fn verdict(findings: &Diagnostics) -> String {
    let errors = counted(findings.count(Severity::Error), "error");
    match findings.count(Severity::Warning) {
        0 => errors,
        warnings => format!("{errors}, {}", counted(warnings, "warning")),
    }
}

/// `1 interface, 2 services, 1 pool, 3 backends`.
pub(super) fn contents(model: &Model) -> String {
    let mut backends: Vec<_> = model
        .pools
        .iter()
        .flat_map(|pool| &pool.backends)
        .map(|backend| backend.address)
        .collect();
    backends.sort_unstable();
    backends.dedup();
    let parts = [
        counted(model.interfaces.len(), "interface"),
        counted(model.services.len(), "service"),
        counted(model.pools.len(), "pool"),
        counted(backends.len(), "backend"),
    ];
    parts.join(", ")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
