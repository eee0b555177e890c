//! Applications through the balancer: connections, requests, latency, throughput, and what a request costs the
//! balancer, beside what a user would pick instead and beside the least that the same way costs.
//!
//! Everything takes turns: a round is one run of each load through each carrier, and every other round goes backwards. A
//! row compares runs of the same round. Rates and latencies are measured as the kernel usually receives, in passing;
//! what a request costs is measured with a thread of the kernel for each end of a link, because then the time of those
//! in the carrier's place is its own and nobody else's.
//!
//! A run counts only if it did what it says: every request answered, the servers' own counters in accord with the
//! client's and with the carrier's, and the CPUs not used by others. The last may not be had on a shared machine; then
//! the best of a few tries is taken and the row says how many of its runs were disturbed.

mod carrier;
mod cpu_time;
mod figure;
mod load;
mod metric;
mod network;
mod preference;
mod run;
mod single;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};

use self::carrier::{Carrier, Kind};
use self::metric::{Line, Metric, Work};
use self::preference::Preferred;
use self::run::Outcome;
use super::report::{Found, Row, Run};

pub(super) use self::figure::draw;

/// What a reader of the throughputs has to know.
pub(super) const OF_THROUGHPUT: &str = "\
app/throughput is without TSO for everyone: an end of a veth whose peer has XDP can't have it, which costs a stream about two thirds.
A NIC keeps it; app/throughput-offloads is what those without XDP reach on the same links with it.";
/// What a reader of disturbed rows has to know.
pub(super) const OF_DISTURBED: &str =
    "disturbed: others used more than a tenth of a CPU meanwhile, in every try";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each row.
    pub rounds: usize,
    /// How long a run is.
    pub span: Duration,
    /// How long runs that others disturbed may be done again, all together.
    pub patience: Duration,
}

impl Effort {
    /// For figures to be shown.
    pub const FULL: Self = Self {
        rounds: 7,
        span: Duration::from_secs(1),
        patience: Duration::from_secs(25),
    };
    /// To see whether something has moved.
    pub const QUICK: Self = Self {
        rounds: 2,
        span: Duration::from_millis(300),
        patience: Duration::from_secs(2),
    };
}

/// Under which name a row counts the runs that others disturbed.
pub(super) const DISTURBED: &str = "disturbed_runs";
/// How many CPUs others may use during a run.
const OTHERS: f64 = 0.1;
/// How often a run is tried.
const TRIES: usize = 4;

/// Measures every row whose name contains one of `only`, or every row where that is empty. A load that a carrier did
/// not carry as it should gives no row.
pub fn measure(effort: Effort, only: &[String], mut progress: impl FnMut(&str)) -> Found {
    let mut wanted = Metric::lines();
    wanted.retain(|line| only.is_empty() || only.iter().any(|part| line.name.contains(part)));
    let needed = wanted.iter().flat_map(|line| {
        let kinds = [Some(line.kind), line.peer].into_iter().flatten();
        kinds.map(|kind| (line.metric.work(), kind))
    });
    let mut turns: Vec<(Work, Kind)> = needed.collect();
    let mut stage = Stage::default();
    turns.sort_unstable();
    turns.dedup();
    let _preferred = match Preferred::new() {
        Ok(preferred) => preferred,
        Err(fault) => {
            return Found {
                rows: Vec::new(),
                faults: vec![fault.context("app")],
            };
        }
    };
    for kind in Kind::ALL {
        if turns.iter().any(|(_, needs)| *needs == kind) {
            progress(&format!("app: {} starts", kind.name()));
            stage.start(kind);
        }
    }
    let mut patience = effort.patience;
    for round in 1..=effort.rounds {
        progress(&format!("app: round {round} of {}", effort.rounds));
        for (work, kind) in &turns {
            stage.take(*work, *kind, effort.span, &mut patience);
        }
        turns.reverse();
    }
    let rows = wanted.into_iter().filter_map(|line| stage.row(line));
    Found {
        rows: rows.collect(),
        faults: stage.faults.into_values().collect(),
    }
}

/// The carriers, and what came of their runs.
#[derive(Default)]
struct Stage {
    carriers: BTreeMap<Kind, Carrier>,
    /// One a round.
    outcomes: BTreeMap<(Work, Kind), Vec<Outcome>>,
    /// Why there are no more runs of this load through this carrier, or of any.
    faults: BTreeMap<(Option<Work>, Kind), Error>,
}

impl Stage {
    fn start(&mut self, kind: Kind) {
        match Carrier::new(kind) {
            Ok(carrier) => {
                self.carriers.insert(kind, carrier);
            }
            Err(fault) => {
                self.faults.insert(
                    (None, kind),
                    fault.context(format!("app/*/{}", kind.name())),
                );
            }
        }
    }

    fn take(&mut self, work: Work, kind: Kind, span: Duration, patience: &mut Duration) {
        let Some(carrier) = self.carriers.get(&kind) else {
            return;
        };
        if self.faults.contains_key(&(Some(work), kind)) {
            return;
        }
        match best(carrier, kind, work, span, patience) {
            Ok(outcome) => self.outcomes.entry((work, kind)).or_default().push(outcome),
            Err(fault) => {
                let place = format!("app: {} through {}", work.name(), kind.name());
                self.outcomes.remove(&(work, kind));
                self.faults.insert((Some(work), kind), fault.context(place));
            }
        }
    }

    fn row(&self, line: Line) -> Option<Row> {
        let Line {
            name,
            metric,
            kind,
            peer,
            target,
        } = line;
        let outcomes = |kind| self.outcomes.get(&(metric.work(), kind));
        let mine = outcomes(kind)?;
        let peers = match peer {
            Some(peer) => Some(outcomes(peer)?),
            None => None,
        };
        let runs = mine.iter().enumerate().map(|(round, outcome)| Run {
            value: metric.value(outcome),
            floor: None,
            peer: peers
                .and_then(|peers| peers.get(round))
                .map(|outcome| metric.value(outcome)),
        });
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (name, count) in mine.iter().flat_map(Outcome::counts) {
            *counts.entry(name.to_owned()).or_default() += count;
        }
        let row = Row::new(name, metric.unit(), runs.collect(), counts);
        Some(Row {
            of_a_peer: kind != Kind::Balancer,
            ..row.with_target(target)
        })
    }
}

/// A run that nobody disturbed, or that which was disturbed the least. A failure is tried once more, because on a crowded
/// machine a segment sent again may come late, and the row says so.
fn best(
    carrier: &Carrier,
    kind: Kind,
    work: Work,
    span: Duration,
    patience: &mut Duration,
) -> Result<Outcome> {
    let mut best: Option<Outcome> = None;
    let mut failures = 0;
    for number in 1..=TRIES {
        let begun = Instant::now();
        match run::run(carrier, kind, work, span) {
            Ok(outcome) => {
                let others = best.as_ref().map_or(f64::INFINITY, |best| best.others);
                if outcome.others < others {
                    best = Some(outcome);
                }
            }
            Err(fault) if failures > 0 => return Err(fault),
            Err(_) => failures += 1,
        }
        if number > 1 {
            *patience = patience.saturating_sub(begun.elapsed());
        }
        let good = best.as_ref().is_some_and(|best| best.others <= OTHERS);
        if good || best.is_some() && patience.is_zero() {
            break;
        }
    }
    let mut best = best.context("no run")?;
    best.failures = failures;
    Ok(best)
}
