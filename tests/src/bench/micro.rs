//! What one packet costs in the kernel program, on one CPU, above what it costs to make the packet.
//!
//! Each row is run several times, the rows one after the other and then again in the opposite order, so that what
//! disturbs the machine for a while disturbs all alike. Beside each run stands one of the floor: the same packets, by the
//! same program, with one that does nothing in the place of the balancer. A row whose packets did not go the way that
//! its name says is an error, not a figure.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::Protocol;

use super::cpu;
use super::plan::{PACKETS, Plan, Tally};
use super::replay::{Lookup, Replay, Run};
use super::report::{self, Found, Unit};
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

/// How long the flows of [`Scene::Silent`] have been silent before a run.
const SILENCE: Duration = Duration::from_secs(5);

/// Of so many flows one may find its buckets full in a table that is not: a row's few packets without an entry are shown
/// beside it, and are part of what it costs.
pub(super) const HOMELESS: u64 = 50;

/// Row of [`Tally::actions`] for `XDP_PASS`.
const PASS: usize = 2;
/// Row of [`Tally::actions`] for `XDP_TX`.
const TX: usize = 3;

/// Measures every row whose name contains one of `only`, and the calibration; every row where that is empty.
///
/// # Errors
/// Where the kernel does not let this thread stay on a CPU, or does not load the program.
pub fn measure(
    object: &[u8],
    effort: Effort,
    only: &[String],
    mut progress: impl FnMut(&str) + Send,
) -> Result<Found> {
    let mut rows: Vec<Measured> = rows::rows()
        .into_iter()
        .filter(|row| is_wanted(row, only))
        .map(|row| Measured {
            row,
            runs: Vec::new(),
            tally: Tally::default(),
            fault: None,
        })
        .collect();
    if rows.iter().all(|measured| measured.row.name == CALIBRATION) {
        return Ok(Found::default());
    }
    cpu::pinned(|| {
        let mut stage = Stage::new(object)?;
        // First, so that the other rows run while these tables rest.
        for measured in &mut rows {
            if let Scene::Full(protocol) = measured.row.scene {
                measured.fault = stage.fill(&mut measured.row, protocol).err();
            }
        }
        for pass in 1..=effort.runs {
            progress(&format!("pass {pass} of {}", effort.runs));
            for measured in rows.iter_mut().filter(|measured| measured.fault.is_none()) {
                let outcome = measured.run(&mut stage, effort.packets);
                measured.fault = outcome.err();
            }
            rows.reverse();
        }
        Ok(())
    })?;
    if effort.runs % 2 == 1 {
        rows.reverse();
    }
    let mut found = Found::default();
    for measured in rows {
        match measured.fault {
            Some(fault) => found.faults.push(fault.context(measured.row.name)),
            None => found.rows.push(measured.report()),
        }
    }
    Ok(found)
}

fn is_wanted(row: &Row, only: &[String]) -> bool {
    only.is_empty() || row.name == CALIBRATION || only.iter().any(|part| row.name.contains(part))
}

/// A row and what was seen of it.
struct Measured {
    row: Row,
    runs: Vec<report::Run>,
    tally: Tally,
    fault: Option<anyhow::Error>,
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
        let [astray, known_astray] = self.tally.strays;
        match self.row.path {
            Path::Forward | Path::Reverse if astray + known_astray > 0 => {
                verdicts.insert("astray".to_owned(), astray + known_astray);
            }
            Path::Flood => {
                let packets: u64 = self.tally.actions.iter().sum();
                verdicts.insert("known".to_owned(), packets / u64::from(PACKETS));
                verdicts.insert("known_astray".to_owned(), known_astray);
            }
            _ => {}
        }
        report::Row::new(self.row.name, Unit::Nanoseconds, self.runs, verdicts)
            .with_target(self.row.target_ns)
    }
}

/// The programs and the tables, as far as rows share them.
struct Stage<'a> {
    object: &'a [u8],
    replay: Replay,
    /// Tables of [`Scene::Lookup`] that have their keys.
    filled: BTreeSet<Lookup>,
    worlds: BTreeMap<Scene, (World, Instant)>,
}

impl<'a> Stage<'a> {
    fn new(object: &'a [u8]) -> Result<Self> {
        Ok(Self {
            object,
            replay: Replay::load()?,
            filled: BTreeSet::new(),
            worlds: BTreeMap::new(),
        })
    }

    /// One run of the row and one of its floor.
    fn run(&mut self, row: &mut Row, packets: u64) -> Result<(Run, Run)> {
        let packets = match row.scene {
            Scene::HalfFull(_) => packets.min(HALF_FULL_RUN),
            Scene::Full(_) => packets.min(FULL_RUN),
            // With what is not timed of it, a run has one packet of each flow at most.
            Scene::Silent(_, flows) => packets.min(u64::from(flows) / 2),
            Scene::Known(..) | Scene::Flooded(..) | Scene::Lookup(_) | Scene::Lines => packets,
        };
        let before = row.plan;
        let raw = match row.scene {
            Scene::Lookup(table) => self.lookup(table, &mut row.plan, packets)?,
            Scene::Lines => self.lines(&mut row.plan, packets)?,
            Scene::Known(protocol, _)
            | Scene::Silent(protocol, _)
            | Scene::HalfFull(protocol)
            | Scene::Full(protocol)
            | Scene::Flooded(protocol, _) => {
                let mut world = self.world(row, packets)?;
                if let Scene::Known(..) | Scene::Silent(..) = row.scene {
                    world.run(&mut self.replay, protocol, &mut row.plan, packets / WARM_UP)?;
                }
                let (run, seen) = world.run(&mut self.replay, protocol, &mut row.plan, packets)?;
                check(row.path, &run.tally, &seen)?;
                if let Scene::Known(..) | Scene::Silent(..) | Scene::Full(_) = row.scene {
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

    /// Fills the tables of a row, which have to rest then.
    fn fill(&mut self, row: &mut Row, protocol: Protocol) -> Result<()> {
        let mut world = World::new(self.object, LARGE_TABLE)?;
        row.plan = world.open(&mut self.replay, protocol, LARGE_TABLE.into())?;
        self.worlds.insert(row.scene, (world, Instant::now()));
        Ok(())
    }

    /// The tables of a row, ready for its next run.
    fn world(&mut self, row: &mut Row, packets: u64) -> Result<World> {
        if let Some((world, used)) = self.worlds.remove(&row.scene) {
            thread::sleep(rest(row.scene).saturating_sub(used.elapsed()));
            return Ok(world);
        }
        let replay = &mut self.replay;
        match row.scene {
            Scene::Known(protocol, flows)
            | Scene::Silent(protocol, flows)
            | Scene::Flooded(protocol, flows) => {
                let entries = entries(row.scene, flows);
                let mut world = World::new(self.object, entries)?;
                world.establish(replay, protocol, flows.into())?;
                if let Scene::Flooded(..) = row.scene {
                    // Until the flood has filled the table, it has not begun.
                    world.run(replay, protocol, &mut row.plan, entries.into())?;
                }
                thread::sleep(rest(row.scene));
                Ok(world)
            }
            Scene::HalfFull(protocol) => {
                let mut world = World::new(self.object, LARGE_TABLE)?;
                // A flow takes two entries.
                let half = u64::from(LARGE_TABLE) / 4;
                row.plan = world.open(replay, protocol, half - packets / 2)?;
                Ok(world)
            }
            Scene::Full(_) => bail!("a run before this one lost the tables"),
            Scene::Lookup(_) | Scene::Lines => unreachable!("has no tables"),
        }
    }

    fn lookup(&mut self, table: Lookup, plan: &mut Plan, packets: u64) -> Result<Run> {
        if self.filled.insert(table) {
            let kind = plan.kinds[0];
            let keys = match table {
                Lookup::Few => rows::LOOKUP_KEYS,
                Lookup::Many => rows::MANY_LOOKUP_KEYS,
            };
            let keys = (0..keys.into()).map(|flow| kind.key(flow));
            self.replay.remember(table, keys)?;
        }
        let lookup = self.replay.lookup(table)?;
        self.found(&lookup, plan, packets)
    }

    fn lines(&mut self, plan: &mut Plan, packets: u64) -> Result<Run> {
        let line = clone_of(&self.replay.line)?;
        self.found(&line, plan, packets)
    }

    fn found(&mut self, program: &ProgramFd, plan: &mut Plan, packets: u64) -> Result<Run> {
        self.replay.run(program, plan, packets / WARM_UP)?;
        let run = self.replay.run(program, plan, packets)?;
        check(Path::Found, &run.tally, &Seen::default())?;
        Ok(run)
    }
}

/// Whether the packets went the way of the row: all of them, but for flows that found no room in their buckets.
fn check(path: Path, tally: &Tally, seen: &Seen) -> Result<()> {
    let packets: u64 = tally.actions.iter().sum();
    let counters = &seen.counters;
    let (made, forward, reverse) = (
        counters.new_flows,
        counters.forward_packets,
        counters.reverse_packets,
    );
    let found = tally.actions[TX].min(packets - tally.strays.iter().sum::<u64>());
    let went = match path {
        Path::Forward => found.min(forward).min(packets - made),
        Path::Reverse => found.min(reverse).min(packets - made),
        Path::New => tally.actions[TX].min(forward).min(made),
        Path::Flood => tally.actions[TX].min(forward),
        Path::Foreign => tally.actions[PASS].min(packets - forward - reverse - made),
        Path::Found => tally.actions[TX],
    };
    let homeless = match path {
        Path::Forward | Path::Reverse | Path::New | Path::Flood => packets / HOMELESS,
        Path::Foreign | Path::Found => 0,
    };
    ensure!(
        packets - went <= homeless,
        "{} of {packets} packets did not go the way of this row: {tally:?}, {counters:?}, verdicts {:?}",
        packets - went,
        seen.verdicts
    );
    Ok(())
}

/// How long tables have to be left alone before a run.
fn rest(scene: Scene) -> Duration {
    match scene {
        Scene::Full(_) => REST,
        Scene::Silent(..) => SILENCE,
        _ => Duration::ZERO,
    }
}

/// Entries of the table for so many known flows: they fill a quarter to a half of it. A flood finds it emptier, so that
/// flows without an entry are the flood's doing.
fn entries(scene: Scene, flows: u32) -> u32 {
    let room = if let Scene::Flooded(..) = scene { 8 } else { 4 };
    (room * flows).next_power_of_two().max(SMALL_TABLE)
}

fn clone_of(program: &ProgramFd) -> Result<ProgramFd> {
    Ok(program.try_clone()?)
}
