//! Measures the balancer: `cargo xtask bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result, ensure};
use clap::{Parser, ValueEnum};
use lb_tests::bench::gate::{Judgement, ROUNDS};
use lb_tests::bench::report::{self, Report, Row};
use lb_tests::bench::{app, compare, micro, plot, scale, table, veth};
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
    /// Compare with the figures of an earlier run; fails where one is a quarter worse (half, where memory is what
    /// counts) in six rounds, or is not there any more
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// What CI does: the parts that are steady enough, quickly, against the figures in the tree
    #[arg(long, conflicts_with_all = ["parts", "against", "only"])]
    gate: bool,
    /// Measure what CI does three times, and make that the figures in the tree
    #[arg(long, conflicts_with_all = ["gate", "parts", "against", "only", "json"])]
    make_reference: bool,
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
    /// Connections, requests, latency, throughput and CPU of applications, beside what else would carry them
    App,
    /// Few and many services, backends and flows: packets, and the agent
    Scale,
}

impl Part {
    /// Whether a row of this name is of this part: most parts begin their rows' names with their own.
    fn has(self, row: &str) -> bool {
        let first = row.split('/').next();
        let of = |part: &Self| part.name().as_deref() == first;
        let named = Self::value_variants().iter().find(|part| of(part));
        *named.unwrap_or(&Self::Micro) == self
    }

    fn name(self) -> Option<String> {
        let value = self.to_possible_value()?;
        Some(value.get_name().to_owned())
    }
}

/// What `--gate` measures. Others depend too much on what else the machine does.
const GATE: [Part; 2] = [Part::Micro, Part::Veth];
/// What `--gate` compares with.
///
/// One for each model of processor: a lookup in an LRU hash, by which figures of different machines are compared, costs half as much
/// beside a packet on one model as on another.
const REFERENCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench-reference");
/// The one that stands in for a model that has none.
const FIRST_REFERENCE: &str = "amd-epyc";

/// The reference of this machine's processor, be there one or not.
fn own_reference() -> Result<PathBuf> {
    let model = report::processor()?;
    let words: Vec<_> = model
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let name = words.join("-").to_ascii_lowercase();
    Ok(Path::new(REFERENCES).join(name).with_extension("json"))
}

/// The reference that a report of this machine is compared with.
fn reference(screen: Screen) -> Result<PathBuf> {
    let own = own_reference()?;
    if own.exists() {
        return Ok(own);
    }
    screen.line(format_args!(
        "no figures of this processor ({}): compared with those of {FIRST_REFERENCE}",
        own.display()
    ));
    Ok(Path::new(REFERENCES)
        .join(FIRST_REFERENCE)
        .with_extension("json"))
}

fn main() -> ExitCode {
    let screen = Screen::new();
    let mut cli = Cli::parse();
    if cli.gate || cli.make_reference {
        cli.parts = GATE.to_vec();
        cli.quick = true;
    }
    screen.finish(run(screen, cli))
}

fn run(screen: Screen, mut cli: Cli) -> Result<()> {
    if cli.make_reference {
        return make_reference(screen, &cli);
    }
    if cli.gate {
        cli.against = Some(reference(screen)?);
    }
    bench(screen, &cli)
}

/// Measures in as many rounds as a suspect gets, so that neither side of a comparison has more luck than the other.
fn make_reference(screen: Screen, cli: &Cli) -> Result<()> {
    let (mut report, mut faults) = measure(screen, cli, &[])?;
    for round in 2..=ROUNDS {
        screen.heading(format_args!("round {round} of {ROUNDS}"));
        let (more, more_faults) = measure(screen, cli, &[])?;
        report.add_runs(more.rows);
        faults.extend(more_faults);
    }
    table::print(screen, &report);
    print_faults(screen, &faults);
    let path = own_reference()?;
    report.write(&path)?;
    screen.heading(format_args!("written: {}", path.display()));
    Ok(())
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
    if let Some(before) = before {
        return judge(screen, cli, &before, report, faults);
    }
    print_faults(screen, &faults);
    ensure!(faults.is_empty(), "{} rows gave no figure", faults.len());
    Ok(())
}

fn print_faults(screen: Screen, faults: &[Error]) {
    for fault in faults {
        screen.line(screen.paint(Colour::Red, format_args!("\nno figure: {fault:#}")));
    }
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
            (Part::App, false) => app::measure(app::Effort::FULL, only, progress),
            (Part::App, true) => app::measure(app::Effort::QUICK, only, progress),
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

/// Compares, and measures again what seems to be too slow or has no figure any more. A row that had none then and has
/// none now is shown, and fails a run without a comparison.
fn judge(
    screen: Screen,
    cli: &Cli,
    before: &Report,
    mut now: Report,
    mut faults: Vec<Error>,
) -> Result<()> {
    compare::print(screen, &compare::changes(before, &now));
    let measured = |name: &str| {
        (cli.parts.is_empty() || cli.parts.iter().any(|part| part.has(name)))
            && (cli.only.is_empty() || cli.only.iter().any(|part| name.contains(part)))
    };
    let mut judgement = Judgement::of(before, &now, measured)?;
    for round in 2..=ROUNDS {
        let suspects = judgement.suspects();
        if suspects.is_empty() {
            break;
        }
        screen.heading(format_args!(
            "{} rows again, round {round} of {ROUNDS}",
            suspects.len()
        ));
        for suspect in &suspects {
            screen.line(suspect);
        }
        let (more, more_faults) = measure(screen, cli, &suspects)?;
        now.add_runs(more.rows);
        // A fault bears the name of its row or of the rows' scene.
        faults.retain(|fault| {
            !now.rows
                .iter()
                .any(|row| row.name.starts_with(&fault.to_string()))
        });
        for fault in more_faults {
            faults.retain(|earlier| earlier.to_string() != fault.to_string());
            faults.push(fault);
        }
        judgement = Judgement::of(before, &now, measured)?;
    }
    for name in &judgement.new {
        screen.line(format_args!("{name}: new, nothing to compare it with"));
    }
    screen.heading(format_args!("{} rows compared", judgement.compared));
    let worse = judgement.faults();
    for line in &worse {
        screen.line(screen.paint(Colour::Red, line));
    }
    print_faults(screen, &faults);
    ensure!(
        worse.is_empty(),
        "{} rows are too slow or missing after {ROUNDS} rounds",
        worse.len()
    );
    Ok(())
}
