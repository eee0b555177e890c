//! What cargo-mutants plants in a package, held against the package's own tests. `.cargo/mutants.toml` says what it leaves alone, and why.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Arguments;
use super::verdicts::Verdicts;
use crate::setup;

/// Tests of a package that take minutes because they follow every interleaving of threads, by parts of their names. They are asked
/// only about what no other test has noticed.
const SLOW: [(&str, &[&str]); 1] = [("lb-common", &["interleavings::", "late::"])];

/// Plants in `package`.
pub(super) fn run(package: &str, arguments: &Arguments) -> Result<Verdicts> {
    let slow = SLOW.iter().find(|(name, _)| *name == package);
    let Some((_, slow)) = slow else {
        return Ok(plant(package, "all", &filters(package, arguments), &[])?.into());
    };
    let skips: Vec<_> = slow.iter().flat_map(|name| ["--skip", *name]).collect();
    let quick = plant(package, "quick", &filters(package, arguments), &skips)?;
    if quick.missed.is_empty() {
        return Ok(quick.into());
    }
    let again: Vec<_> = quick
        .missed
        .iter()
        .flat_map(|name| ["--re".to_owned(), exactly(name)])
        .collect();
    let slow = plant(package, "slow", &again, &[])?;
    Ok(Outcome {
        caught: quick.caught + slow.caught,
        missed: slow.missed,
    }
    .into())
}

/// Which bugs are planted.
fn filters(package: &str, arguments: &Arguments) -> Vec<String> {
    let mut filters = Vec::new();
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
        filters.extend(["--file".to_owned(), pattern.display().to_string()]);
    }
    if let Some(shard) = &arguments.shard {
        // Every N-th bug and not N slices: a part is a sample of all files.
        let sharding = ["--shard", shard, "--sharding", "round-robin"];
        filters.extend(sharding.map(str::to_owned));
    }
    if let Some(diff) = &arguments.in_diff {
        filters.extend(["--in-diff".to_owned(), diff.display().to_string()]);
    }
    filters
}

/// What became of the bugs of a run.
struct Outcome {
    caught: usize,
    /// By their whole names.
    missed: Vec<String>,
}

impl From<Outcome> for Verdicts {
    fn from(outcome: Outcome) -> Self {
        Self {
            caught: outcome.caught,
            refused: 0,
            survivors: outcome
                .missed
                .iter()
                .map(|name| without_place(name))
                .collect(),
        }
    }
}

/// Runs cargo-mutants once, with these arguments of the tests.
fn plant(package: &str, run: &str, filters: &[String], tests: &[&str]) -> Result<Outcome> {
    let program = setup::cargo_mutants()?;
    let output = xtask::root().join("target/mutants").join(package).join(run);
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
        .arg(&output)
        .args(filters)
        .args(["--", "--lib", "--"])
        .args(tests);
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
        Ok(text.lines().map(str::to_owned).collect())
    };
    Ok(Outcome {
        caught: list("caught.txt")?.len() + list("timeout.txt")?.len(),
        missed: list("missed.txt")?,
    })
}

/// A regular expression that matches this name and no other.
fn exactly(name: &str) -> String {
    let mut expression = "^".to_owned();
    for character in name.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression + "$"
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

    #[test]
    fn an_expression_says_the_name_and_nothing_more() {
        assert_eq!(
            exactly("a/b.rs:1:2: replace x -> y with (1.0)"),
            r"^a/b\.rs:1:2: replace x -> y with \(1\.0\)$"
        );
    }
}
