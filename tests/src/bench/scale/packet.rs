//! What a packet costs with few and with many services, backends and flows.
//!
//! All terrains of an axis take turns in each pass, and each time in the opposite order. They carry packets of equally
//! many flows, so what differs is the number that the axis is about, and the ratio to the least of them is taken within
//! a pass.

use anyhow::Result;

use super::super::cpu;
use super::super::replay::Replay;
use super::super::report::{Found, Row, Run, Unit};
use super::terrain::{Cost, PORTS, Size, Terrain};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Runs of each row.
    runs: usize,
    /// Packets of known flows in a run.
    packets: u64,
    /// New flows in a run.
    flows: u64,
    /// Numbers of flows that may be in the table, and its entries.
    others: &'static [u32],
    entries: u32,
}

impl Effort {
    pub(super) const FULL: Self = Self {
        runs: 16,
        packets: 1 << 18,
        flows: 4_096,
        others: &[0, 100_000, 1_000_000, 4_000_000],
        entries: 1 << 24,
    };
    pub(super) const QUICK: Self = Self {
        runs: 5,
        packets: 1 << 17,
        flows: 4_096,
        others: &[0, 1_000_000],
        entries: 1 << 22,
    };
}

/// Entries of a table where the number of flows is not what the row is about: all flows, the new ones of all runs among
/// them, fill it to a quarter.
const TABLE: u32 = 1 << 20;
/// Backends where their number is not what the row is about; there are never fewer than services.
const BACKENDS: u16 = 16;
const MOST: u16 = 4_096;
/// How many times the cost with the least number a packet may cost.
const TARGET: f64 = 1.1;

/// One number grows, everything else stays.
struct Axis {
    name: &'static str,
    sizes: Vec<(u32, Size)>,
    target: Option<f64>,
}

fn axes(effort: Effort) -> [Axis; 3] {
    let usual = Size {
        services: 1,
        backends: BACKENDS,
        others: 0,
        entries: TABLE,
    };
    let services = |services| Size {
        services,
        backends: MOST,
        ..usual
    };
    let backends = |backends| Size { backends, ..usual };
    let others = |others: u32| Size {
        others: others.into(),
        entries: effort.entries,
        ..usual
    };
    let wide = |sizes: [u16; 3], size: &dyn Fn(u16) -> Size| {
        let sizes = sizes.into_iter();
        sizes.map(|number| (number.into(), size(number))).collect()
    };
    [
        Axis {
            name: "services",
            sizes: wide([1, 64, MOST], &services),
            target: Some(TARGET),
        },
        Axis {
            name: "backends",
            sizes: wide([2, 64, MOST], &backends),
            target: Some(TARGET),
        },
        Axis {
            name: "flows",
            sizes: effort
                .others
                .iter()
                .map(|number| (*number, others(*number)))
                .collect(),
            target: None,
        },
    ]
}

/// Measures every axis of which a row is wanted.
pub(super) fn measure(
    object: &[u8],
    effort: Effort,
    wanted: &dyn Fn(&str) -> bool,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Found {
    let mut found = Found::default();
    for axis in axes(effort) {
        let names = |path: &str| -> Vec<String> {
            let numbers = axis.sizes.iter().map(|(number, _)| number);
            numbers
                .map(|number| format!("scale/packet/{path}/{}/{number}", axis.name))
                .collect()
        };
        let (hit, new) = (names("hit"), names("new"));
        if !hit.iter().chain(&new).any(|name| wanted(name)) {
            continue;
        }
        progress(&format!("packets: {}", axis.name));
        match cpu::pinned(|| axis.measure(object, effort)) {
            Ok([of_hits, of_news]) => {
                found.rows.extend(rows(hit, &of_hits, axis.target));
                found.rows.extend(rows(new, &of_news, axis.target));
            }
            Err(fault) => found
                .faults
                .push(fault.context(format!("scale/packet/{}", axis.name))),
        }
    }
    found
}

/// Costs by run and number.
type Costs = Vec<Vec<Cost>>;

impl Axis {
    /// Costs of packets of known flows, and of new ones.
    fn measure(&self, object: &[u8], effort: Effort) -> Result<[Costs; 2]> {
        let mut replay = Replay::load()?;
        let mut terrains = Vec::new();
        // Each run goes to one, and the next run to the next.
        let ports = effort.runs.min(PORTS) as u64;
        for (_, size) in &self.sizes {
            let terrain = Terrain::new(object, *size)?;
            terrains.push(terrain.with_known_flows(&mut replay, ports)?);
        }
        let mut costs = [Vec::new(), Vec::new()];
        for (run, port) in (0..effort.runs).zip((0..ports).cycle()) {
            let mut order: Vec<usize> = (0..terrains.len()).collect();
            if run % 2 == 1 {
                order.reverse();
            }
            let mut pass = vec![None; terrains.len()];
            for place in order {
                let terrain = &mut terrains[place];
                let hit = terrain.hit(&mut replay, port, effort.packets)?;
                pass[place] = Some([hit, terrain.open(&mut replay, port, effort.flows)?]);
            }
            for (path, costs) in costs.iter_mut().enumerate() {
                costs.push(pass.iter().flatten().map(|both| both[path]).collect());
            }
        }
        for terrain in &mut terrains {
            terrain.check_shares()?;
        }
        Ok(costs)
    }
}

/// A row for each number, all but the first beside the first.
fn rows(names: Vec<String>, costs: &Costs, target: Option<f64>) -> impl Iterator<Item = Row> {
    names.into_iter().enumerate().map(move |(place, name)| {
        let runs = costs.iter().map(|pass| {
            let Cost { raw, floor } = pass[place];
            let least = pass[0].raw - pass[0].floor;
            Run {
                value: raw,
                floor: Some(floor),
                peer: (place > 0).then_some(least),
            }
        });
        let row = Row::new(name, Unit::Nanoseconds, runs.collect(), [].into());
        row.with_target(target.filter(|_| place > 0))
    })
}
