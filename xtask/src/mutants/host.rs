//! What cargo-mutants plants in a package, held against the package's own tests. `.cargo/mutants.toml` says what it leaves alone, and why.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Arguments;
use super::verdicts::Verdicts;
use crate::setup;

/// Plants in `package`.
pub(super) fn run(package: &str, arguments: &Arguments) -> Result<Verdicts> {
    let program = setup::cargo_mutants()?;
    let output = xtask::root().join("target/mutants").join(package);
    fs::create_dir_all(&output).with_context(|| format!("can't create {}", output.display()))?;
    let tools = program.parent().map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(tools.into_iter().chain(env::split_paths(&path)))
        .context("target/tools can't stand in PATH")?;
    let mut mutants = Command::new(&program);
    mutants
        .current_dir(xtask::root())
        // The copy that it works in has no linker of eBPF objects of its own.
        .env("PATH", path)
        .args([
            "mutants",
            "--package",
            package,
            "--no-shuffle",
            "--colors=never",
        ])
        .arg("--output")
        .arg(&output);
    if let Some(path) = arguments
        .path
        .as_ref()
        .filter(|path| path.starts_with(package))
    {
        let pattern = if xtask::root().join(path).is_dir() {
            path.join("**/*.rs")
        } else {
            path.clone()
        };
        mutants.arg("--file").arg(pattern);
    }
    if let Some(shard) = &arguments.shard {
        // Every N-th bug and not N slices: a part is a sample of all files.
        mutants.args(["--shard", shard, "--sharding", "round-robin"]);
    }
    if let Some(diff) = &arguments.in_diff {
        mutants.arg("--in-diff").arg(diff);
    }
    mutants.args(["--", "--lib"]);
    let status = mutants.status().context("can't run cargo-mutants")?;
    match status.code() {
        // All caught, some missed, some ran out of time.
        Some(0 | 2 | 3) => {}
        _ => bail!("cargo-mutants over {package}: {status}"),
    }
    let list = |name: &str| -> Result<Vec<String>> {
        let path = output.join("mutants.out").join(name);
        let text =
            fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(text.lines().map(without_place).collect())
    };
    Ok(Verdicts {
        caught: list("caught.txt")?.len() + list("timeout.txt")?.len(),
        refused: 0,
        survivors: list("missed.txt")?,
    })
}

/// A mutant's name without line and column, which unrelated edits change.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(line), Some(column), Some(what))
            if [line, column]
                .iter()
                .all(|number| number.parse::<u32>().is_ok()) =>
        {
            format!("{file}:{what}")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_named_without_its_place() {
        assert_eq!(
            without_place("lb-common/src/flow.rs:118:9: replace State::ends -> bool with true"),
            "lb-common/src/flow.rs: replace State::ends -> bool with true"
        );
        assert_eq!(without_place("no place"), "no place");
    }
}
