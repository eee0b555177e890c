//! Packets a second through veth links: the balancer beside the least that a program could do, and beside nftables.
//!
//! The kernel makes frames and counts what comes out. One CPU does everything, the making, the carrying and the
//! counting, so a rate is the inverse of what a frame costs in all three, and the rates of two carriers differ by what
//! they themselves cost. All carriers take turns in every pass; a row compares runs of the same pass.
//!
//! Packets are UDP, because a connection of made-up segments would not pass conntrack's look at sequence numbers. Known
//! flows are answered before they count.

pub(super) mod end;
pub(super) mod nftables;
mod scene;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::DEFAULT_FLOW_ENTRIES;

use self::nftables::PROTOCOL;
use self::scene::{Kind, Scene};
use super::cpu::{self, SoftirqThread};
use super::micro::HOMELESS;
use super::packets::{Step, opening, plan};
use super::plan::{Arrived, Plan};
use super::report::{Found, Row, Run, Unit};
use super::world::{backend_port, service_port, watch};
use crate::topology::Arms;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each row.
    pub runs: u32,
    /// Frames of a run.
    pub frames: u32,
    /// New flows of a run. Conntrack has to be able to hold those of all repetitions: the machine's limit (262,144) is not
    /// this program's to change.
    pub flows: u32,
}

impl Effort {
    /// For figures to be shown.
    pub const FULL: Self = Self {
        runs: 9,
        frames: 1_000_000,
        flows: 25_000,
    };
    /// To see whether something has moved.
    pub const QUICK: Self = Self {
        runs: 5,
        frames: 300_000,
        flows: 25_000,
    };
}

/// Known flows.
const FLOWS: u32 = 16_384;
/// So few of them that their entries stay in the nearest cache.
const FEW: u32 = 16;
/// Runs begin with a part as large as this, not timed.
const WARM_UP: u32 = 8;
/// How often a run is tried.
const TRIES: usize = 8;
/// What the balancer should reach of a bare program's rate.
const SHARE: f64 = 0.92;
/// How many times nftables' rate it should reach.
const TIMES_NFTABLES: f64 = 6.0;

/// Measures every row whose name contains one of `only`, or every row where that is empty. A shape in which frames were
/// lost, or the kernel refused something, gives no rows.
pub fn measure(
    object: &[u8],
    effort: Effort,
    only: &[String],
    mut progress: impl FnMut(&str),
) -> Found {
    let wanted = |name: &String| only.is_empty() || only.iter().any(|part| name.contains(part));
    let mut found = Found::default();
    for (arms, name) in [(Arms::One, "one-arm"), (Arms::Two, "two-arm")] {
        let names = ["share", "share-16", "vs-nftables", "vs-nftables-new"]
            .map(|row| format!("veth/{name}/{row}"));
        if !names.iter().any(wanted) {
            continue;
        }
        match measure_shape(object, arms, effort, |pass| {
            progress(&format!("{name}: {pass}"));
        }) {
            Ok(stage) => found.rows.extend(
                stage
                    .rows(names)
                    .into_iter()
                    .filter(|row| wanted(&row.name)),
            ),
            Err(fault) => found.faults.push(fault.context(format!("veth/{name}"))),
        }
    }
    found
}

fn measure_shape(
    object: &[u8],
    arms: Arms,
    effort: Effort,
    mut progress: impl FnMut(&str),
) -> Result<Stage> {
    let mut stage = Stage::new(object, arms, effort)?;
    for pass in 1..=effort.runs {
        progress(&format!("pass {pass} of {}", effort.runs));
        stage.pass(effort)?;
    }
    Ok(stage)
}

/// The networks of a shape, and the rates so far.
struct Stage {
    balancer: Scene,
    /// With a table for all the flows that will ever be made, and none yet.
    open: Scene,
    bare: Scene,
    nftables: Scene,
    /// Flows of `open` that have been.
    next: u64,
    rates: Vec<Rates>,
    verdicts: BTreeMap<String, u64>,
}

/// Packets a second in one pass.
#[derive(Clone, Copy)]
struct Rates {
    bare: f64,
    known: f64,
    /// Of the known flows, [`FEW`] alone.
    few: f64,
    new: f64,
    nftables: f64,
    nftables_new: f64,
}

impl Stage {
    fn new(object: &[u8], arms: Arms, effort: Effort) -> Result<Self> {
        let flow_entries = DEFAULT_FLOW_ENTRIES;
        let mut balancer = Scene::new(object, arms, Kind::Balancer { flow_entries })?;
        establish(&mut balancer)?;
        // Two entries a flow, and not half full at the end, even if some runs are done again.
        let flow_entries = (8 * effort.runs * effort.flows).next_power_of_two();
        Ok(Self {
            balancer,
            open: Scene::new(object, arms, Kind::Balancer { flow_entries })?,
            bare: Scene::new(object, arms, Kind::Bare)?,
            nftables: Scene::new(object, arms, Kind::Nftables)?,
            next: 0,
            rates: Vec::new(),
            verdicts: BTreeMap::new(),
        })
    }

    fn pass(&mut self, effort: Effort) -> Result<()> {
        let Effort { frames, flows, .. } = effort;
        let bare = rate(
            &mut self.bare,
            &mut known(FLOWS),
            frames,
            service_port(PROTOCOL),
        )?;

        let [known_rate, few] = [FLOWS, FEW].map(|flows| {
            let (rate, new_flows) = balancer_rate(
                &mut self.balancer,
                &mut self.verdicts,
                &mut known(flows),
                frames,
            )?;
            ensure!(
                new_flows <= u64::from(frames) / HOMELESS,
                "{new_flows} of the known flows were made anew"
            );
            Ok(rate)
        });
        let mut unknown = opening(PROTOCOL);
        unknown.next = self.next;
        let (new, new_flows) =
            balancer_rate(&mut self.open, &mut self.verdicts, &mut unknown, flows)?;
        ensure!(
            new_flows >= u64::from(flows) * (HOMELESS - 1) / HOMELESS,
            "{new_flows} flows were made of {flows}"
        );
        self.next = unknown.next;

        self.nftables.forget_tracked()?;
        establish(&mut self.nftables)?;
        let port = backend_port(PROTOCOL);
        // As long as the others take: this one carries several times less.
        let nftables = rate(&mut self.nftables, &mut known(FLOWS), frames / 4, port)?;
        unknown.next = FLOWS.into();
        let nftables_new = rate(&mut self.nftables, &mut unknown, flows, port)?;
        self.rates.push(Rates {
            bare,
            known: known_rate?,
            few: few?,
            new,
            nftables,
            nftables_new,
        });
        Ok(())
    }

    fn rows(self, [share, share_of_few, versus, versus_new]: [String; 4]) -> [Row; 4] {
        let row = |name, target, figures: fn(&Rates) -> (f64, f64)| {
            let runs = self.rates.iter().map(figures).map(|(value, peer)| Run {
                value,
                floor: None,
                peer: Some(peer),
            });
            Row::new(
                name,
                Unit::PacketsPerSecond,
                runs.collect(),
                self.verdicts.clone(),
            )
            .with_target(Some(target))
        };
        [
            row(share, SHARE, |rates| (rates.known, rates.bare)),
            row(share_of_few, SHARE, |rates| (rates.few, rates.bare)),
            row(versus, TIMES_NFTABLES, |rates| {
                (rates.known, rates.nftables)
            }),
            row(versus_new, TIMES_NFTABLES, |rates| {
                (rates.new, rates.nftables_new)
            }),
        ]
    }
}

/// The balancer's rate, and how many flows it made. Its verdicts are added up.
fn balancer_rate(
    scene: &mut Scene,
    verdicts: &mut BTreeMap<String, u64>,
    plan: &mut Plan,
    frames: u32,
) -> Result<(f64, u64)> {
    let before = watch(scene.carrier.program()?, PROTOCOL);
    let rate = rate(scene, plan, frames, backend_port(PROTOCOL))?;
    let seen = before.seen(scene.carrier.program()?);
    for (verdict, packets) in seen.verdicts {
        *verdicts.entry(verdict.to_owned()).or_default() += packets;
    }
    Ok((rate, seen.counters.new_flows))
}

/// Packets of so many of the known flows, at random.
fn known(flows: u32) -> Plan {
    plan(Step::Confirm.kind(PROTOCOL)).at_random(flows)
}

/// Makes the known flows: a datagram each way.
fn establish(scene: &mut Scene) -> Result<()> {
    let mut open = plan(Step::Open.kind(PROTOCOL)).in_sequence(FLOWS.into());
    carry(scene, &mut open, FLOWS, backend_port(PROTOCOL)).context("opening flows")?;
    let mut answer = plan(Step::Answer.kind(PROTOCOL)).in_sequence(FLOWS.into());
    // An answer goes to its client's port, which no one port is.
    let nowhere = plan(Step::Open.kind(PROTOCOL));
    scene.client.expect(&nowhere)?;
    let before = scene.client.arrived()?;
    scene.backend().send(&mut answer, FLOWS)?;
    let after = scene.client.arrived()?;
    let answered = after.others + after.wanted - before.others - before.wanted;
    ensure!(
        answered >= u64::from(FLOWS) * 99 / 100,
        "{answered} of {FLOWS} answers came back"
    );
    Ok(())
}

/// [`carry`], warmed up where the packets allow it: a flow is new only once.
fn rate(scene: &mut Scene, plan: &mut Plan, frames: u32, port: u16) -> Result<f64> {
    if plan.kinds[0].random != 0 {
        carry(scene, plan, frames / WARM_UP, port)?;
    }
    carry(scene, plan, frames, port)
}

/// Packets a second from the client to this port of the backends.
///
/// Where others want the CPU too, the kernel may put off what carries the frames while more are made, until the links
/// are full. Such a run says nothing and is done again.
fn carry(scene: &mut Scene, plan: &mut Plan, frames: u32, port: u16) -> Result<f64> {
    let mut disturbed = None;
    for _ in 0..TRIES {
        match carry_once(scene, plan, frames, port)? {
            (arrived, rate) if arrived.is_nearly(frames) => return Ok(rate),
            (arrived, _) => disturbed = Some(arrived),
        }
    }
    bail!("of {frames} frames only {disturbed:?} arrived, {TRIES} times in a row")
}

fn carry_once(
    scene: &mut Scene,
    plan: &mut Plan,
    frames: u32,
    port: u16,
) -> Result<(Arrived, f64)> {
    plan.wanted_port = port.to_be().into();
    scene.backend().expect(plan)?;
    let before = scene.backend().arrived()?;
    // What is too much to be done in passing is done by a thread of the kernel, whose time counts too.
    let thread = SoftirqThread::of(cpu::chosen()?)?;
    let thread_before = thread.ran()?;
    let took = scene.client.send(plan, frames)?;
    let arrived = scene.backend().last_arrived(frames, before)?;
    let took = took + thread.ran()?.saturating_sub(thread_before);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 frames")]
    let rate = arrived.wanted as f64 / took.as_secs_f64();
    Ok((arrived, rate))
}
