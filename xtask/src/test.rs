//! `cargo xtask test`: every test of the repository.
//!
//! Unit and doc tests run as the user. The suites of the harness make network namespaces and load eBPF: they run as root, one test at a
//! time, and what they leave behind fails the command as a failing test does.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::SIGINT;

use crate::build::{self, Profile};
use crate::leaks::{self, Snapshot};
use crate::tally::Tally;
use crate::{launch, root, setup};

/// How long what the tests started may stay silent after them before it counts as left behind; after Ctrl-C they tear down meanwhile.
const GRACE: Duration = Duration::from_secs(10);

/// Runs every test: unit and doc tests, then the suites in network namespaces, as root
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Run only this suite of `tests/suites`, and no unit tests
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// For the test programs: a part of the names of the tests to run, or their options
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<()> {
        setup::ensure()?;
        // The suites run the agent as a program of its own. All targets, so that it shares the tests' dependencies.
        build::run(build::cargo().args(["build", "--locked", "--all-targets"]))?;
        self.test()
    }

    #[expect(
        clippy::print_stdout,
        reason = "the closing line is the command's result"
    )]
    fn test(&self) -> Result<()> {
        // Ctrl-C is for the tests, which take down what they made; this program waits for them.
        let interrupted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, Arc::clone(&interrupted))
            .context("can't handle Ctrl-C")?;
        let before = Snapshot::take()?;

        let mut runs = Vec::new();
        if self.suite.is_none() {
            runs.push(self.units(&["--lib", "--bins"])?);
            runs.push(self.units(&["--doc"])?);
        }
        if !interrupted.load(Ordering::Relaxed) {
            runs.push(self.suites()?);
        }

        let mut total = Tally::default();
        let mut faults = Vec::new();
        for run in runs {
            total.add(run.tally);
            faults.extend(run.faults);
        }
        let leaks = before.leaks()?;
        faults.extend(leaks.iter().map(|leak| format!("left behind: {leak}")));
        let names = self.names();
        if total.ran() == 0 && !names.is_empty() {
            faults.push(format!("no test's name contains {}", names.join(" or ")));
        }
        println!("{total}");
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if !faults.is_empty() {
            bail!("{}", faults.join("\nerror: "));
        }
        Ok(())
    }

    /// Tests inside the sources, as the user.
    fn units(&self, targets: &[&str]) -> Result<Run> {
        let mut cargo = cargo_test();
        cargo.args(targets);
        run(cargo, &self.filter)
    }

    /// The suites, as root.
    fn suites(&self) -> Result<Run> {
        let mut cargo = cargo_test();
        cargo.args(["--test", self.suite.as_deref().unwrap_or("*")]);
        launch::agent(&mut cargo, Profile::Dev)?;
        if !root::is_root() {
            let runner = format!("target.'cfg(all())'.runner = {:?}", root::prefix()?);
            cargo.args(["--config", &runner]);
        }
        let one_at_a_time = ["--test-threads=1".to_owned()];
        let mut run = run(cargo, &[&one_at_a_time, &self.filter[..]].concat())?;
        if self.names().is_empty() {
            let idle = run.tally.idle().iter();
            run.faults
                .extend(idle.map(|suite| format!("no test ran in {suite}")));
        }
        Ok(run)
    }

    /// What the tests' names must contain, without the options among the arguments.
    fn names(&self) -> Vec<&str> {
        let arguments = self.filter.iter().map(String::as_str);
        arguments.filter(|word| !word.starts_with('-')).collect()
    }
}

/// What a run of `cargo test` came to.
struct Run {
    tally: Tally,
    /// Reasons for which the whole fails, a line each.
    faults: Vec<String>,
}

/// What happens while `cargo test` runs.
enum Event {
    Output(Vec<u8>),
    Exit(io::Result<ExitStatus>),
}

fn cargo_test() -> Command {
    let mut cargo = build::cargo();
    cargo.args(["test", "--locked", "--no-fail-fast"]);
    cargo
}

/// Runs `cargo test`, with `arguments` for the test programs, shows what it prints and counts the tests in it.
fn run(mut cargo: Command, arguments: &[String]) -> Result<Run> {
    cargo.arg("--").args(arguments);
    if io::stdout().is_terminal() {
        cargo
            .env("CARGO_TERM_COLOR", "always")
            .arg("--color=always");
    }
    // One pipe for both, so that the name of a test program comes before its results.
    let (output, input) = io::pipe().context("can't make a pipe")?;
    cargo
        .stdout(input.try_clone().context("can't copy a pipe")?)
        .stderr(input);
    leaks::mark(&mut cargo);
    let mut child = cargo.spawn().context("can't run cargo test")?;
    // The command holds the pipe's writing end; without it the output ends with the last process that the tests started.
    drop(cargo);

    let (events, received) = mpsc::channel();
    let reader = events.clone();
    thread::spawn(move || read(output, &reader));
    thread::spawn(move || events.send(Event::Exit(child.wait())));

    let next = |exited| {
        if exited {
            received.recv_timeout(GRACE).ok()
        } else {
            received.recv().ok()
        }
    };
    let mut tally = Tally::default();
    let mut exit = None;
    while let Some(event) = next(exit.is_some()) {
        match event {
            Event::Output(bytes) => {
                let mut screen = io::stdout();
                // Whoever read this may be gone; the tests still have to end in order.
                screen.write_all(&bytes).and_then(|()| screen.flush()).ok();
                tally.take(&bytes);
            }
            Event::Exit(status) => exit = Some(status.context("can't wait for cargo test")?),
        }
    }
    let failure = exit
        .filter(|status| !status.success())
        .map(|status| format!("cargo test: {status}"));
    Ok(Run {
        tally,
        faults: failure.into_iter().collect(),
    })
}

/// Sends what comes out of the pipe until it ends or nobody listens.
fn read(pipe: io::PipeReader, events: &Sender<Event>) {
    let mut pipe = BufReader::new(pipe);
    while let Ok(bytes) = pipe.fill_buf().map(<[u8]>::to_vec) {
        pipe.consume(bytes.len());
        if bytes.is_empty() || events.send(Event::Output(bytes)).is_err() {
            return;
        }
    }
}
