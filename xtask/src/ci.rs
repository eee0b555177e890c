//! `cargo xtask ci`: everything that a change must pass.

use std::time::Instant;

use anyhow::{Context, Result};
use xtask::{recipe, toolchain};

use crate::build::{cargo, run};
use crate::{bench, kernels, setup, test, verify};

type Step = (&'static str, fn() -> Result<()>);

/// Runs the steps until one fails.
pub(crate) fn ci() -> Result<()> {
    let steps: [Step; 9] = [
        ("setup", setup::ensure),
        ("format", || run(cargo().args(["fmt", "--all", "--check"]))),
        ("clippy", || {
            run(cargo().args(["clippy", "--locked", "--all-targets", "--", "-Dwarnings"]))
        }),
        ("clippy of the eBPF programs", || {
            recipe::clippy(&toolchain::detect()?)
        }),
        ("documentation", || {
            run(cargo()
                .args(["doc", "--locked", "--no-deps"])
                .env("RUSTDOCFLAGS", "-Dwarnings"))
        }),
        ("verify", verify::verify),
        ("unit tests and suites", || test::Arguments::default().run()),
        ("the oldest kernel", kernels::gate),
        ("bench", bench::gate),
    ];
    let start = Instant::now();
    for (name, step) in steps {
        eprintln!("\n== {name}");
        let begun = Instant::now();
        step().with_context(|| format!("ci failed in {name:?}"))?;
        eprintln!("== {name}: ok, {} s", begun.elapsed().as_secs());
    }
    eprintln!("\n== ci: ok, {} s", start.elapsed().as_secs());
    Ok(())
}
