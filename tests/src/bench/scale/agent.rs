//! The real agent with few and with many services and backends.
//!
//! What it was asked for is looked up in its status, which is read from the maps in force, and packets of a client are
//! sent through; a size at which either is wrong is an error, not a figure.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::super::report::{Found, Row, Run, Unit};
use super::planner;
use super::process::Process;
use super::site::{Shape, Site};
use crate::agent::Agent;
use crate::{command, poll};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Services, and backends.
    sizes: &'static [u16],
    /// Services, and backends that are checked every second. More than a thousand take most of a small machine, half of it
    /// for the servers that answer.
    checked: &'static [u16],
    /// Backends that change at once, at the largest size.
    changes: &'static [u16],
    /// Entries of flow tables.
    tables: &'static [u32],
    /// Orders of each kind, and quiet spans.
    runs: usize,
    /// How long the agent is left alone to see what it does by itself.
    quiet: Duration,
    /// How long a removed backend's flow is watched.
    held: Duration,
}

impl Effort {
    pub(super) const FULL: Self = Self {
        sizes: &[1, 64, 512, 4_096],
        checked: &[1, 64, 1_024],
        changes: &[1, 100, 4_000],
        tables: &[1 << 18, 1 << 24],
        runs: 5,
        quiet: Duration::from_secs(2),
        held: Duration::from_secs(6),
    };
    pub(super) const QUICK: Self = Self {
        sizes: &[1, 512],
        checked: &[64],
        changes: &[1, 100],
        tables: &[1 << 18],
        runs: 3,
        quiet: Duration::from_secs(1),
        held: Duration::from_secs(3),
    };
}

/// Of every pool with checks, that all are up.
const UP: Duration = Duration::from_secs(20);
const ENTRIES: u32 = 1 << 18;

/// Measures what is wanted.
pub(super) fn measure(
    effort: Effort,
    wanted: &dyn Fn(&str) -> bool,
    progress: &mut dyn FnMut(&str),
) -> Found {
    let mut stage = Stage {
        effort,
        wanted,
        progress,
        found: Found::default(),
    };
    stage.run();
    stage.found
}

struct Stage<'a> {
    effort: Effort,
    wanted: &'a dyn Fn(&str) -> bool,
    progress: &'a mut dyn FnMut(&str),
    found: Found,
}

/// Of a size without checks.
const PLAIN: [&str; 8] = [
    "start", "plan", "apply", "status", "scrape", "idle", "memory", "maps",
];

impl Stage<'_> {
    fn run(&mut self) {
        let Effort {
            sizes,
            changes,
            tables,
            checked,
            ..
        } = self.effort;
        let largest = sizes.iter().copied().max().unwrap_or(1);
        let mut site = None;
        for size in sizes {
            let of = format!("change-of-{size}");
            let change = *size == largest && changes.iter().any(|k| self.wants(&of, *k));
            if change || PLAIN.iter().any(|what| self.wants(what, *size)) {
                self.part(&mut site, "services and backends", *size, |stage, site| {
                    stage.plain(site, *size, change)
                });
            }
        }
        for size in checked {
            if self.wants("checked", *size) {
                self.part(&mut site, "checked backends", *size, |stage, site| {
                    stage.checked(site, *size)
                });
            }
        }
        for entries in tables {
            if self.wants("held", *entries) {
                self.part(
                    &mut site,
                    "entries, of a removed backend",
                    *entries,
                    |stage, site| stage.held(site, *entries),
                );
            }
        }
    }

    /// Runs a part; what it did not find is a fault of its own.
    fn part(
        &mut self,
        site: &mut Option<Site>,
        what: &str,
        number: impl Into<u32>,
        part: impl FnOnce(&mut Self, &Site) -> Result<()>,
    ) {
        let number = number.into();
        (self.progress)(&format!("agent: {number} {what}"));
        let made = match site.take() {
            Some(site) => Ok(site),
            None => Site::new(),
        };
        let outcome = made.and_then(|made| part(self, site.insert(made)));
        if let Err(fault) = outcome {
            self.found
                .faults
                .push(fault.context(format!("scale/agent/../{number} ({what})")));
        }
    }

    fn plain(&mut self, site: &Site, number: u16, changes: bool) -> Result<()> {
        let Effort { runs, quiet, .. } = self.effort;
        let shape = Shape {
            size: number,
            moved: 0,
            checked: false,
            entries: ENTRIES,
        };
        let mut agent = site.agent(shape)?;
        let start = timed(|| launch(&mut agent))?;
        self.row("start", number, Unit::Milliseconds, &[start]);
        check(&agent, shape)?;
        site.check_packets(shape)?;

        let moves: Vec<_> = repeat(runs, |run| change(&agent, shape, odd(run)))?;
        self.row("apply", number, Unit::Milliseconds, &moves);
        let plans = planner::times(number, runs)?;
        self.row("plan", number, Unit::Milliseconds, &plans);

        let socket = agent.socket().display().to_string();
        let lists = repeat(runs, |_| {
            timed(|| {
                let output = agent.lb(&["status", "--socket", &socket])?;
                ensure!(output.status.success(), "{}", command::said(&output));
                Ok(())
            })
        })?;
        self.row("status", number, Unit::Milliseconds, &lists);
        let scrapes = repeat(runs, |_| {
            timed(|| {
                let page = agent.http("/metrics")?;
                ensure!(page.status == 200, "status {}", page.status);
                Ok(())
            })
        })?;
        self.row("scrape", number, Unit::Milliseconds, &scrapes);

        let process = Process::new(agent.status()?.agent.pid);
        let idle = repeat(runs, |_| process.cpu(quiet))?;
        self.row("idle", number, Unit::MillisecondsPerSecond, &idle);
        if changes {
            self.changes(&agent, site, shape)?;
        }
        self.row("memory", number, Unit::Mebibytes, &[process.memory()?]);
        self.row("maps", number, Unit::Mebibytes, &[process.maps()?]);
        agent.terminate()?;
        Ok(())
    }

    /// Changes of few and of many backends.
    fn changes(&mut self, agent: &Agent, site: &Site, shape: Shape) -> Result<()> {
        for changed in self.effort.changes {
            let times = repeat(self.effort.runs, |run| {
                change(agent, shape, odd(run) * changed)
            })?;
            let what = format!("change-of-{}", shape.size);
            self.row(&what, *changed, Unit::Milliseconds, &times);
        }
        let moved = self.effort.changes.last().copied().unwrap_or_default();
        let moved = odd(self.effort.runs - 1) * moved;
        site.check_packets(Shape { moved, ..shape })
    }

    /// What checks cost, all backends being up.
    fn checked(&mut self, site: &Site, number: u16) -> Result<()> {
        let Effort { runs, quiet, .. } = self.effort;
        let shape = Shape {
            size: number,
            moved: 0,
            checked: true,
            entries: ENTRIES,
        };
        let mut agent = site.agent(shape)?;
        launch(&mut agent)?;
        poll::until(UP, "all backends to be up", || check(&agent, shape))?;
        let process = Process::new(agent.status()?.agent.pid);
        let busy = repeat(runs, |_| process.cpu(quiet))?;
        self.row("checked", number, Unit::MillisecondsPerSecond, &busy);
        check(&agent, shape)?;
        agent.terminate()?;
        Ok(())
    }

    /// What the agent does while a removed backend holds a flow.
    fn held(&mut self, site: &Site, entries: u32) -> Result<()> {
        let shape = Shape {
            size: 1,
            moved: 0,
            checked: false,
            entries,
        };
        let mut agent = site.agent(shape)?;
        shape.write_silent(&agent, 2)?;
        launch(&mut agent)?;
        // One of two connections goes to the backend that stays, the other to the one that is removed.
        let connections = [site.hold()?, site.hold()?];
        shape.write_silent(&agent, 1)?;
        reload(&agent)?;
        let removed = agent.status()?;
        let removed = removed
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .find(|backend| backend.state == "removed")
            .context("no removed backend holds a flow")?;
        ensure!(removed.active_flows == 1, "{removed:?}");
        let process = Process::new(agent.status()?.agent.pid);
        let busy = process.cpu(self.effort.held)?;
        self.row("held", entries, Unit::MillisecondsPerSecond, &[busy]);
        drop(connections);
        agent.terminate()?;
        Ok(())
    }

    fn wants(&self, what: &str, number: impl Into<u32>) -> bool {
        (self.wanted)(&name(what, number.into()))
    }

    fn row(&mut self, what: &str, number: impl Into<u32>, unit: Unit, values: &[f64]) {
        let runs = values.iter().map(|value| Run {
            value: *value,
            floor: None,
            peer: None,
        });
        let name = name(what, number.into());
        self.found
            .rows
            .push(Row::new(name, unit, runs.collect(), [].into()));
    }
}

fn name(what: &str, number: u32) -> String {
    format!("scale/agent/{what}/{number}")
}

/// 1, 0, 1, ...: what a run leaves the next one finds.
fn odd(run: usize) -> u16 {
    u16::from(run.is_multiple_of(2))
}

fn repeat(runs: usize, mut run: impl FnMut(usize) -> Result<f64>) -> Result<Vec<f64>> {
    (0..runs).map(&mut run).collect()
}

/// Milliseconds.
fn timed(order: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    order()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds from the order to the end of `lb reload`, after which so many backends have their second address.
fn change(agent: &Agent, shape: Shape, moved: u16) -> Result<f64> {
    let shape = Shape { moved, ..shape };
    shape.write(agent)?;
    let took = timed(|| reload(agent))?;
    check(agent, shape)?;
    Ok(took)
}

/// Starts an agent; of the log of one that does not, thousands of lines, the last is enough.
fn launch(agent: &mut Agent) -> Result<()> {
    agent.launch().map_err(|fault| {
        let text = format!("{fault:#}");
        anyhow!(
            "{}",
            text.lines().next_back().unwrap_or_default().to_owned()
        )
    })
}

fn reload(agent: &Agent) -> Result<()> {
    let socket = agent.socket().display().to_string();
    let output = agent.lb(&["reload", "--socket", &socket])?;
    ensure!(
        output.status.success(),
        "lb reload: {}",
        command::said(&output)
    );
    Ok(())
}

/// Whether the slots in force of every service name the backends that they should.
fn check(agent: &Agent, shape: Shape) -> Result<()> {
    let status = agent.status()?;
    let services = status.services.iter().filter(|service| !service.removed);
    let mut seen = 0;
    for (number, service) in (0..shape.size).zip(services) {
        let there = service
            .backends
            .iter()
            .filter(|backend| backend.in_rotation && backend.next_hop.is_some());
        let there: BTreeSet<SocketAddrV4> = there
            .map(|backend| backend.address.parse())
            .collect::<Result<_, _>>()?;
        let wanted: BTreeSet<SocketAddrV4> = shape.rotation(number).collect();
        ensure!(
            there == wanted,
            "new flows of {} go to {there:?}, not to {wanted:?}",
            service.name
        );
        seen += 1;
    }
    ensure!(
        seen == shape.size,
        "{seen} services of {} in force",
        shape.size
    );
    Ok(())
}
