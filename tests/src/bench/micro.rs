//! What one packet costs in the kernel program, on one CPU, above what it costs to make the packet.
//!
//! Each row is run several times, the rows one after the other and then again in the opposite order, so that what
//! disturbs the machine for a while disturbs all alike. Beside each run stands one of the floor: the same packets, by the
//! same program, with one that does nothing in the place of the balancer. A row whose packets did not go the way that
//! its name says is an error, not a figure.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::plan::{Plan, Tally};
use super::replay::{Replay, Run};
use super::report::{self, Unit};
use super::rows::{self, CALIBRATION, Path, Row, Scene};
use super::world::{Seen, World};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each row.
    pub runs: usize,
    /// Packets in a run, at most.
    pub packets: u64,
}

impl Effort {
    /// For figures to be shown.
    pub const FULL: Self = Self {
        runs: 9,
        packets: 1_000_000,
    };
    /// To see whether something has moved.
    pub const QUICK: Self = Self {
        runs: 5,
        packets: 128_000,
    };
}

/// Entries of a table that 500,000 flows fill to a half.
const LARGE_TABLE: u32 = 1 << 21;
/// Entries of a table that nobody sized.
const SMALL_TABLE: u32 = 1 << 18;
/// New flows in a run of a half-full table: a quarter of the table, from 3/8 to 5/8.
const HALF_FULL_RUN: u64 = 1 << 18;
/// New flows in a run of a full table: an eighth of the table, so that hardly any bucket gets more of them than it has
/// entries that may be evicted.
const FULL_RUN: u64 = 1 << 17;
/// A run begins with a part as large as this, not timed: what the row before left in the caches is not this one's to pay
/// for.
const WARM_UP: u64 = 4;
/// How old an entry has to be before a new flow may take its place, and some more.
const REST: Duration = Duration::from_millis(3_300);

/// Row of [`Tally::actions`] for `XDP_PASS`.
const PASS: usize = 2;
/// Row of [`Tally::actions`] for `XDP_TX`.
const TX: usize = 3;

/// Measures every row whose name contains one of `only`, and the calibration; every row where that is empty.
///
/// # Errors
/// Where a row's packets did not go its way, or the kernel refuses something.
pub fn measure(
    object: &[u8],
    effort: Effort,
    only: &[String],
    mut progress: impl FnMut(&str),
) -> Result<Vec<report::Row>> {
    pin()?;
    let mut stage = Stage::new(object)?;
    let mut rows: Vec<Measured> = rows::rows()
        .into_iter()
        .filter(|row| is_wanted(row, only))
        .map(|row| Measured {
            row,
            runs: Vec::new(),
            tally: Tally::default(),
        })
        .collect();
    if rows.iter().all(|measured| measured.row.name == CALIBRATION) {
        return Ok(Vec::new());
    }
    for pass in 1..=effort.runs {
        progress(&format!("pass {pass} of {}", effort.runs));
        for measured in &mut rows {
            measured
                .run(&mut stage, effort.packets)
                .with_context(|| measured.row.name.clone())?;
        }
        rows.reverse();
    }
    if effort.runs % 2 == 1 {
        rows.reverse();
    }
    Ok(rows.into_iter().map(Measured::report).collect())
}

fn is_wanted(row: &Row, only: &[String]) -> bool {
    only.is_empty() || row.name == CALIBRATION || only.iter().any(|part| row.name.contains(part))
}

/// Keeps this thread on one CPU: the last that it may use, because interrupts prefer the first.
fn pin() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(last.context("this thread may use no CPU")?);
    sched_setaffinity(None, &one).context("staying on one CPU")
}

/// A row and what was seen of it.
struct Measured {
    row: Row,
    runs: Vec<report::Run>,
    tally: Tally,
}

impl Measured {
    fn run(&mut self, stage: &mut Stage<'_>, packets: u64) -> Result<()> {
        let (raw, floor) = stage.run(&mut self.row, packets)?;
        for (sum, packets) in self.tally.actions.iter_mut().zip(raw.tally.actions) {
            *sum += packets;
        }
        for (sum, packets) in self.tally.strays.iter_mut().zip(raw.tally.strays) {
            *sum += packets;
        }
        self.runs.push(report::Run {
            value: raw.ns,
            floor: Some(floor.ns),
            peer: None,
        });
        Ok(())
    }

    fn report(self) -> report::Row {
        const ACTIONS: [&str; 5] = ["aborted", "drop", "pass", "tx", "redirect"];
        let mut verdicts: BTreeMap<String, u64> = ACTIONS
            .into_iter()
            .zip(self.tally.actions)
            .filter(|(_, packets)| *packets > 0)
            .map(|(action, packets)| (action.to_owned(), packets))
            .collect();
        if self.row.path == Path::Flood {
            verdicts.insert(
                "known".to_owned(),
                self.tally.actions.iter().sum::<u64>() / 8,
            );
            verdicts.insert("known_astray".to_owned(), self.tally.strays[1]);
        }
        report::Row::new(self.row.name, Unit::Nanoseconds, self.runs, verdicts)
            .with_target(self.row.target_ns)
    }
}

/// The programs and the tables, as far as rows share them.
struct Stage<'a> {
    object: &'a [u8],
    replay: Replay,
    worlds: BTreeMap<Scene, (World, Instant)>,
}

impl<'a> Stage<'a> {
    fn new(object: &'a [u8]) -> Result<Self> {
        Ok(Self {
            object,
            replay: Replay::load()?,
            worlds: BTreeMap::new(),
        })
    }

    /// One run of the row and one of its floor.
    fn run(&mut self, row: &mut Row, packets: u64) -> Result<(Run, Run)> {
        let packets = match row.scene {
            Scene::HalfFull(_) => packets.min(HALF_FULL_RUN),
            Scene::Full(_) => packets.min(FULL_RUN),
            Scene::Known(..) | Scene::Flooded(..) | Scene::Lookup => packets,
        };
        let before = row.plan;
        let raw = match row.scene {
            Scene::Lookup => self.lookup(&mut row.plan, packets)?,
            Scene::Known(protocol, _)
            | Scene::HalfFull(protocol)
            | Scene::Full(protocol)
            | Scene::Flooded(protocol, _) => {
                let mut world = self.world(row, packets)?;
                if let Scene::Known(..) = row.scene {
                    world.run(&mut self.replay, protocol, &mut row.plan, packets / WARM_UP)?;
                }
                let (run, seen) = world.run(&mut self.replay, protocol, &mut row.plan, packets)?;
                check(row.path, &run.tally, &seen)?;
                if let Scene::Known(..) | Scene::Full(_) = row.scene {
                    self.worlds.insert(row.scene, (world, Instant::now()));
                }
                run
            }
        };
        let mut same_packets = before;
        let floor = clone_of(&self.replay.floor)?;
        let floor = self.replay.run(&floor, &mut same_packets, packets)?;
        Ok((raw, floor))
    }

    /// The tables of a row, ready for its next run.
    fn world(&mut self, row: &mut Row, packets: u64) -> Result<World> {
        if let Some((world, used)) = self.worlds.remove(&row.scene) {
            if let Scene::Full(_) = row.scene {
                thread::sleep(REST.saturating_sub(used.elapsed()));
            }
            return Ok(world);
        }
        let replay = &mut self.replay;
        match row.scene {
            Scene::Known(protocol, flows) | Scene::Flooded(protocol, flows) => {
                let entries = (4 * flows).next_power_of_two().max(SMALL_TABLE);
                let mut world = World::new(self.object, entries)?;
                world.establish(replay, protocol, flows.into())?;
                if let Scene::Flooded(..) = row.scene {
                    // Until the flood has filled the table, it has not begun.
                    world.run(replay, protocol, &mut row.plan, entries.into())?;
                }
                Ok(world)
            }
            Scene::HalfFull(protocol) => {
                let mut world = World::new(self.object, LARGE_TABLE)?;
                // A flow takes two entries.
                let half = u64::from(LARGE_TABLE) / 4;
                row.plan = world.open(replay, protocol, half - packets / 2)?;
                Ok(world)
            }
            Scene::Full(protocol) => {
                let mut world = World::new(self.object, LARGE_TABLE)?;
                row.plan = world.open(replay, protocol, LARGE_TABLE.into())?;
                thread::sleep(REST);
                Ok(world)
            }
            Scene::Lookup => unreachable!("has no tables"),
        }
    }

    fn lookup(&mut self, plan: &mut Plan, packets: u64) -> Result<Run> {
        let kind = plan.kinds[0];
        for flow in 0..kind.flows {
            self.replay.remember(kind.key(flow))?;
        }
        let lookup = clone_of(&self.replay.lookup)?;
        self.replay.run(&lookup, plan, packets / WARM_UP)?;
        let run = self.replay.run(&lookup, plan, packets)?;
        check_actions(&run.tally, TX)?;
        Ok(run)
    }
}

/// Whether the packets went the way of the row.
fn check(path: Path, tally: &Tally, seen: &Seen) -> Result<()> {
    let packets: u64 = tally.actions.iter().sum();
    let counters = &seen.counters;
    let action = if path == Path::Foreign { PASS } else { TX };
    let (forward, reverse, new) = match path {
        Path::Forward => (packets, 0, Some(0)),
        Path::Reverse => (0, packets, Some(0)),
        Path::New => (packets, 0, Some(packets)),
        Path::Flood => (packets, 0, None),
        Path::Foreign | Path::Found => (0, 0, Some(0)),
    };
    let strays_allowed = matches!(path, Path::New | Path::Flood);
    (|| {
        check_actions(tally, action)?;
        ensure!(
            strays_allowed || tally.strays == [0; 2],
            "{:?} went astray",
            tally.strays
        );
        ensure!(
            counters.forward_packets == forward,
            "{} were counted forward",
            counters.forward_packets
        );
        ensure!(
            counters.reverse_packets == reverse,
            "{} were counted reverse",
            counters.reverse_packets
        );
        let made = counters.new_flows;
        ensure!(new.is_none_or(|new| made == new), "{made} flows were made");
        Ok(())
    })()
    .with_context(|| {
        format!(
            "of {packets} packets some did not go the way of this row; verdicts: {:?}",
            seen.verdicts
        )
    })
}

fn check_actions(tally: &Tally, action: usize) -> Result<()> {
    let others = tally
        .actions
        .iter()
        .enumerate()
        .filter(|(row, _)| *row != action);
    let others: u64 = others.map(|(_, packets)| packets).sum();
    ensure!(
        others == 0,
        "{others} did not get XDP action {action}: {:?}",
        tally.actions
    );
    Ok(())
}

fn clone_of(program: &ProgramFd) -> Result<ProgramFd> {
    Ok(program.try_clone()?)
}
