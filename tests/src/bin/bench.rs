//! Measures the balancer: `cargo xtask bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use lb_tests::bench::report::{Report, Row};
use lb_tests::bench::{compare, micro, plot, scale, table, veth};
use lb_tests::screen::{Colour, Screen};

/// Measures what a packet costs, and says which way that has moved
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Cli {
    /// What to measure; everything where nothing is named
    parts: Vec<Part>,
    /// Fewer and shorter runs: to see whether something has moved, not to be quoted
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with the figures of an earlier run; fails where one is 1.25 times worse, three times in a row
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Only rows whose names contain this; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds of a packet in the kernel program
    Micro,
    /// Packets a second through veth links
    Veth,
    /// Few and many services, backends and flows: packets, and the agent
    Scale,
}

/// How often a row has to be too slow before that is believed.
const REPEATS: usize = 3;

fn main() -> ExitCode {
    let screen = Screen::new();
    screen.finish(bench(screen, &Cli::parse()))
}

fn bench(screen: Screen, cli: &Cli) -> Result<()> {
    // Before anything is measured: a name mistyped is known at once.
    let before = cli.against.as_deref().map(Report::read).transpose()?;
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let directory = &fs::canonicalize(directory)?;

    let (report, faults) = measure(screen, cli, &cli.only)?;
    table::print(screen, &report);
    for path in [Some(&directory.join("bench.json")), cli.json.as_ref()]
        .into_iter()
        .flatten()
    {
        report.write(path)?;
    }
    let pictures = plot::write(&report, directory)?;
    screen.heading("written");
    for path in pictures {
        screen.line(path.display());
    }
    let judged = before.map_or(Ok(()), |before| judge(screen, cli, &before, &report));
    for fault in &faults {
        screen.line(screen.paint(Colour::Red, format_args!("\nno figure: {fault:#}")));
    }
    ensure!(faults.is_empty(), "{} rows gave no figure", faults.len());
    judged
}

fn measure(screen: Screen, cli: &Cli, only: &[String]) -> Result<(Report, Vec<Error>)> {
    let progress = |what: &str| screen.line(screen.paint(Colour::Grey, what));
    let parts = if cli.parts.is_empty() {
        Part::value_variants()
    } else {
        &cli.parts
    };
    let object = lb_userspace::OBJECT;
    let mut rows: Vec<Row> = Vec::new();
    let mut faults = Vec::new();
    for part in parts {
        let found = match (part, cli.quick) {
            (Part::Micro, false) => micro::measure(object, micro::Effort::FULL, only, progress)?,
            (Part::Micro, true) => micro::measure(object, micro::Effort::QUICK, only, progress)?,
            (Part::Veth, false) => veth::measure(object, veth::Effort::FULL, only, progress),
            (Part::Veth, true) => veth::measure(object, veth::Effort::QUICK, only, progress),
            (Part::Scale, false) => scale::measure(object, scale::Effort::FULL, only, progress),
            (Part::Scale, true) => scale::measure(object, scale::Effort::QUICK, only, progress),
        };
        rows.extend(found.rows);
        faults.extend(found.faults);
    }
    ensure!(
        !rows.is_empty() || !faults.is_empty(),
        "no row's name contains {only:?}"
    );
    Ok((Report::new(rows)?, faults))
}

/// Compares, and measures again what seems to be too slow.
fn judge(screen: Screen, cli: &Cli, before: &Report, now: &Report) -> Result<()> {
    let changes = compare::changes(before, now);
    compare::print(screen, &changes);
    let mut suspects = compare::names_of_too_much(&changes);
    for repeat in 2..=REPEATS {
        if suspects.is_empty() {
            return Ok(());
        }
        screen.heading(format_args!(
            "{} rows again, time {repeat} of {REPEATS}",
            suspects.len()
        ));
        let changes = compare::changes(before, &measure(screen, cli, &suspects)?.0);
        let still = compare::names_of_too_much(&changes);
        suspects.retain(|name| still.contains(name));
    }
    if suspects.is_empty() {
        return Ok(());
    }
    bail!(
        "more than {} times worse, {REPEATS} times in a row: {}",
        compare::LIMIT,
        suspects.join(", ")
    )
}
