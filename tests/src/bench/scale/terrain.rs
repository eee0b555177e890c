//! The tables of a row: so many services, backends and flows, and the packets that go through all of them.
//!
//! The programs that make packets vary the last byte of an address. Where there are more than 256 services or backends,
//! ports tell them apart: of backends by the number of the flow; of services by the run, so that packets go to 256 of
//! them at a time, and to all in turn. Every terrain has equally many runs, of packets of equally many flows, among
//! equally many others.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{FlowCounters, Protocol};

use super::super::micro::HOMELESS;
use super::super::packets::{Step, plan};
use super::super::plan::{Address, Kind, PACKETS};
use super::super::replay::{Replay, Run};
use crate::frames::Mac;
use crate::program::{INGRESS, Program};

/// Flows whose packets are timed in a run, on every terrain the same.
const FLOWS: u32 = 4_096;
/// Runs that make up a cost; in each all services have one port.
const PARTS: u64 = 16;
/// Services and backends that addresses alone tell apart.
const ADDRESSES: u16 = 256;
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const FIRST_BACKEND: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
const SERVICE_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8_080;
/// Flows that are opened before the first of them is answered.
const AT_ONCE: u64 = 1 << 16;
/// A run begins with a part as large as this, not timed.
const WARM_UP: u64 = 4;
/// In a table that is half full one of so many new flows may find its buckets full: of eight entries, four of which are
/// taken on average, all are in one case of twenty, and a flow needs two places.
const HALF_FULL_HOMELESS: u64 = 8;
/// Row of a tally's actions for `XDP_TX`.
const TX: usize = 3;

/// How much there is of everything. Powers of two, but for the flows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Services, 1 to 4,096.
    pub(super) services: u16,
    /// Backends, 1 to 4,096, and no fewer than services.
    pub(super) backends: u16,
    /// Flows beside those that every terrain has, that no packet belongs to any more.
    pub(super) others: u64,
    /// Entries of the flow table.
    pub(super) entries: u32,
}

/// The program with its tables filled.
pub(super) struct Terrain {
    program: Program,
    entry: ProgramFd,
    size: Size,
    /// The first flow that has not been.
    next: u64,
    /// Where the generator of random flows goes on, so that no two runs have the same packets.
    random: Option<u64>,
}

/// Nanoseconds a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) raw: f64,
    pub(super) floor: f64,
}

/// Packets of several runs: what all took, and where they went.
#[derive(Default)]
struct Sum {
    packets: u64,
    raw: f64,
    floor: f64,
    sent: u64,
    strays: u64,
}

impl Sum {
    fn add(&mut self, packets: u64, run: &Run) {
        self.packets += packets;
        self.raw += run.ns * weight(packets);
        self.sent += run.tally.actions[TX];
        self.strays += run.tally.strays.iter().sum::<u64>();
    }

    fn add_floor(&mut self, packets: u64, run: &Run) {
        self.floor += run.ns * weight(packets);
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 packets")]
fn weight(packets: u64) -> f64 {
    packets as f64
}

impl Terrain {
    /// Fills the tables; all flows are established by packets through the program.
    ///
    /// # Errors
    /// What the kernel says of the program or the maps, or packets that went elsewhere.
    pub(super) fn new(object: &[u8], replay: &mut Replay, size: Size) -> Result<Self> {
        let mut program = Program::load_with_flow_entries(object, size.entries)?;
        for number in 0..size.backends {
            let [.., last] = backend(number).ip().octets();
            let hop = (Mac([2, 0, 0, 0, 1, last]), INGRESS);
            program.set_backend(number + 1, backend(number), Some(hop))?;
        }
        for number in 0..size.services {
            program.set_service(
                u32::from(number) + 1,
                service(number),
                Protocol::Tcp,
                &slots(size, number),
            )?;
        }
        let entry = program.data_plane()?.fd()?.try_clone()?;
        let mut terrain = Self {
            program,
            entry,
            size,
            next: 0,
            random: None,
        };
        let flows = u64::from(FLOWS);
        let known: Vec<_> = (0..PARTS)
            .map(|part| {
                // Of services that have several ports each port has the same flows.
                let first = if size.services > ADDRESSES {
                    0
                } else {
                    part * flows
                };
                first..first + flows
            })
            .collect();
        terrain.establish(replay, &known)?;
        terrain.next = PARTS * flows;
        let end = terrain.next + size.others;
        while terrain.next < end {
            // Soon answered: a half-open flow that is seconds old may be evicted.
            let sweep = terrain.sweep(AT_ONCE.min(end - terrain.next));
            terrain.establish(replay, &sweep)?;
        }
        Ok(terrain)
    }

    /// Packets of known flows at random, so many in each run.
    ///
    /// # Errors
    /// Where they were not sent to the backends of their flows.
    pub(super) fn hit(&mut self, replay: &mut Replay, packets: u64) -> Result<Cost> {
        let made = self.made()?;
        let mut sum = Sum::default();
        for part in 0..PARTS {
            let mut plan = plan(self.kind(Step::Confirm, part, 0)).at_random(FLOWS);
            plan.random = self.random.unwrap_or(plan.random);
            replay.run(&self.entry, &mut plan, packets / WARM_UP)?;
            let mut same = plan;
            let run = replay.run(&self.entry, &mut plan, packets)?;
            self.random = Some(plan.random);
            sum.add(packets, &run);
            sum.add_floor(
                packets,
                &replay.run(&replay.floor.try_clone()?, &mut same, packets)?,
            );
        }
        let made = self.made()? - made;
        ensure!(
            made <= sum.packets / HOMELESS,
            "{made} known flows were made anew"
        );
        self.judge(sum)
    }

    /// The first packets of so many flows that have not been.
    ///
    /// # Errors
    /// Where they made no flows, or were not sent to the backends whose turn it was.
    pub(super) fn open(&mut self, replay: &mut Replay, flows: u64) -> Result<Cost> {
        let made = self.made()?;
        let sweep = self.sweep(flows);
        let cost = self.run(replay, Step::Open, &sweep)?;
        let made = self.made()? - made;
        ensure!(
            flows.saturating_sub(made) <= flows / HALF_FULL_HOMELESS,
            "{made} flows were made of {flows}"
        );
        Ok(cost)
    }

    /// Whether services and backends have had their shares of the packets; else the row is not what its name says.
    ///
    /// # Errors
    /// Where one has had none, or too many less than half their share: the flow of a few has no entry.
    pub(super) fn check_shares(&mut self) -> Result<()> {
        let (services, backends) = (self.size.services, self.size.backends);
        let of_services: Vec<_> = (1..=u32::from(services))
            .map(|row| self.program.service_counters(row))
            .collect::<Result<_>>()?;
        let of_backends: Vec<_> = (1..=backends)
            .map(|row| self.program.backend_counters(row))
            .collect::<Result<_>>()?;
        for (what, counters) in [("service", of_services), ("backend", of_backends)] {
            let packets = |counters: &FlowCounters| counters.forward_packets;
            let all: u64 = counters.iter().map(packets).sum();
            let share = all / counters.len() as u64;
            let short = counters
                .iter()
                .filter(|counters| packets(counters) < share / 2)
                .count();
            let idle = counters.iter().any(|counters| packets(counters) == 0);
            ensure!(
                !idle && short as u64 <= counters.len() as u64 / HOMELESS,
                "{short} of {} {what}s got less than half their share, {share} packets",
                counters.len()
            );
        }
        Ok(())
    }

    /// The next flows that have not been, in the parts of a sweep.
    fn sweep(&mut self, flows: u64) -> Vec<Range<u64>> {
        let sweep = parts(self.next, flows);
        self.next = sweep.last().map_or(self.next, |part| part.end);
        sweep
    }

    /// Makes flows, both directions heard.
    fn establish(&mut self, replay: &mut Replay, sweep: &[Range<u64>]) -> Result<()> {
        for step in [Step::Open, Step::Answer, Step::Confirm] {
            self.run(replay, step, sweep)?;
        }
        Ok(())
    }

    /// Runs a packet of each flow through the program and through none.
    fn run(&mut self, replay: &mut Replay, step: Step, sweep: &[Range<u64>]) -> Result<Cost> {
        let mut sum = Sum::default();
        for (part, flows) in (0..).zip(sweep) {
            for flows in self.blocks(step, flows) {
                let packets = flows.end - flows.start;
                let mut plan = plan(self.kind(step, part % PARTS, flows.start));
                plan = plan.in_sequence(u64::MAX);
                plan.next = flows.start;
                let mut same = plan;
                sum.add(packets, &replay.run(&self.entry, &mut plan, packets)?);
                if let Step::Open = step {
                    let floor = replay.floor.try_clone()?;
                    sum.add_floor(packets, &replay.run(&floor, &mut same, packets)?);
                }
            }
        }
        self.judge(sum)
    }

    /// What packets cost that went where they should.
    fn judge(&mut self, sum: Sum) -> Result<Cost> {
        let Sum {
            packets,
            sent,
            strays,
            ..
        } = sum;
        // What was dropped has kept its address, so it is among the strays too.
        let astray = (packets - sent.min(packets)).max(strays);
        let homeless = if self.size.others == 0 {
            HOMELESS
        } else {
            HALF_FULL_HOMELESS
        };
        ensure!(
            astray <= packets / homeless,
            "{astray} of {packets} packets went elsewhere: {:?}",
            self.program.verdicts()?
        );
        let all = weight(packets.max(1));
        Ok(Cost {
            raw: sum.raw / all,
            floor: sum.floor / all,
        })
    }

    /// The flows of a part, apart where their backends have different ports and the packet comes from there.
    fn blocks(&self, step: Step, flows: &Range<u64>) -> Vec<Range<u64>> {
        let size = match step {
            Step::Answer | Step::Deliver if self.size.backends > ADDRESSES => u64::from(ADDRESSES),
            _ => flows.end - flows.start,
        };
        let starts = flows
            .clone()
            .step_by(usize::try_from(size.max(1)).unwrap_or(usize::MAX));
        starts
            .map(|start| start..(start + size).min(flows.end))
            .collect()
    }

    /// The packet of a step for flows from `first` on, in the part of a sweep at a place.
    fn kind(&self, step: Step, place: u64, first: u64) -> Kind {
        let several = |first: Ipv4Addr, number: u16| Address {
            first: u32::from_ne_bytes(first.octets()),
            mask: u32::from(number.min(ADDRESSES)) - 1,
        };
        let vips = several(FIRST_VIP, self.size.services);
        let backends = several(FIRST_BACKEND, self.size.backends);
        let kind = step.kind(Protocol::Tcp);
        let (other, rewritten, port) = if kind.reverse == 0 {
            let number = place * u64::from(ADDRESSES) % u64::from(self.size.services);
            (vips, backends, service(short(number)).port())
        } else {
            let number = if self.size.services > ADDRESSES {
                place * u64::from(ADDRESSES)
            } else {
                first % u64::from(self.size.backends)
            };
            (backends, vips, backend(short(number)).port())
        };
        Kind {
            other,
            rewritten,
            other_port: port.to_be().into(),
            ..kind
        }
    }

    /// Flows made so far, by all services.
    fn made(&mut self) -> Result<u64> {
        let services = 1..=u32::from(self.size.services);
        services
            .map(|row| Ok(self.program.service_counters(row)?.new_flows))
            .sum()
    }
}

/// The parts of a sweep: whole rounds, so a few flows more where the number is not a multiple.
fn parts(first: u64, flows: u64) -> Vec<Range<u64>> {
    let size = (flows / PARTS).next_multiple_of(PACKETS.into());
    (0..PARTS)
        .map(|part| first + part * size)
        .map(|start| start..start + size)
        .collect()
}

fn service(number: u16) -> SocketAddrV4 {
    numbered(FIRST_VIP, SERVICE_PORT, number)
}

fn backend(number: u16) -> SocketAddrV4 {
    numbered(FIRST_BACKEND, BACKEND_PORT, number)
}

/// As flows count: the address first, then the port.
fn numbered(first: Ipv4Addr, port: u16, number: u16) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(first.to_bits() + u32::from(number % ADDRESSES));
    SocketAddrV4::new(address, port + number / ADDRESSES)
}

/// Rows of the backends of a service, so that flow `i` comes to backend `i mod n`: services that addresses tell apart deal
/// their flows in order; one of those that share an address with others has a backend to itself, in all its slots.
fn slots(size: Size, service: u16) -> Vec<u16> {
    if size.services > ADDRESSES {
        return vec![1 + service; 16];
    }
    let turns = size.backends / size.services;
    (0..turns)
        .map(|turn| 1 + service + size.services * turn)
        .collect()
}

fn short(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
