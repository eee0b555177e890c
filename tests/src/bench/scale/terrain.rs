//! The tables of a row: so many services, backends and flows, and the packets that go through all of them.
//!
//! The programs that make packets vary the last byte of an address. Where there are more than 256 services or backends,
//! ports tell them apart: of backends by the number of the flow; of services by the run, so that packets go to 256 of
//! them at a time, one port after the other. Every terrain has equally many flows, and packets of equally many in a run.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{FlowCounters, Protocol};

use super::super::micro::HOMELESS;
use super::super::packets::{Step, plan};
use super::super::plan::{Address, Kind, PACKETS, Plan};
use super::super::replay::{Replay, Run};
use crate::frames::Mac;
use crate::program::{INGRESS, Program};

/// Flows whose packets are timed in a run, on every terrain the same.
const FLOWS: u32 = 4_096;
/// Ports of services, at most.
pub(super) const PORTS: usize = 16;
/// Services and backends that addresses alone tell apart.
const ADDRESSES: u16 = 256;
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const FIRST_BACKEND: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
const SERVICE_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8_080;
/// Flows that are opened before the first of them is answered.
const AT_ONCE: u64 = 1 << 18;
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
    /// Ports of services that packets were sent to.
    visited: BTreeSet<u64>,
}

/// Nanoseconds a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) raw: f64,
    pub(super) floor: f64,
}

impl Terrain {
    /// Fills the tables; there are no flows.
    ///
    /// # Errors
    /// What the kernel says of the program or the maps.
    pub(super) fn new(object: &[u8], size: Size) -> Result<Self> {
        let mut program = Program::load_with_flow_entries(object, size.entries)?;
        program.together(|program| {
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
            Ok(())
        })?;
        let entry = program.data_plane()?.fd()?.try_clone()?;
        let terrain = Self {
            program,
            entry,
            size,
            next: 0,
            random: None,
            visited: BTreeSet::new(),
        };
        Ok(terrain)
    }

    /// Makes the flows that [`Terrain::hit`] has packets of at so many ports, on other terrains as many that are only opened,
    /// and [`Size::others`], by packets through the program.
    ///
    /// # Errors
    /// Packets that went elsewhere.
    pub(super) fn with_known_flows(mut self, replay: &mut Replay, ports: u64) -> Result<Self> {
        let flows = u64::from(FLOWS);
        if self.size.services > ADDRESSES {
            for port in 0..ports {
                self.establish(replay, port, 0..flows)?;
            }
        } else {
            self.establish(replay, 0, 0..flows)?;
            self.run(replay, Step::Open, 0, flows..flows * ports)?;
        }
        self.next = flows * ports;
        let end = self.next + self.size.others;
        while self.next < end {
            // Soon answered: a half-open flow that is seconds old may be evicted.
            let flows = AT_ONCE.min(end - self.next);
            let flows = flows.next_multiple_of(PACKETS.into());
            self.establish(replay, 0, self.next..self.next + flows)?;
            self.next += flows;
        }
        Ok(self)
    }

    /// Packets of known flows at random, to services at a port.
    ///
    /// # Errors
    /// Where they were not sent to the backends of their flows.
    pub(super) fn hit(&mut self, replay: &mut Replay, port: u64, packets: u64) -> Result<Cost> {
        self.visited.insert(port);
        let made = self.made();
        let mut plan = plan(self.kind(Step::Confirm, port, 0)).at_random(FLOWS);
        plan.random = self.random.unwrap_or(plan.random);
        let mut same = plan;
        let raw = self.packets(replay, &mut plan, packets)?;
        self.random = Some(plan.random);
        let made = self.made() - made;
        ensure!(
            made <= packets / HOMELESS,
            "{made} known flows were made anew"
        );
        Ok(Cost {
            raw,
            floor: floor(replay, &mut same, packets)?,
        })
    }

    /// The first packets of so many flows that have not been, to services at a port.
    ///
    /// # Errors
    /// Where they made no flows, or were not sent to the backends whose turn it was.
    pub(super) fn open(&mut self, replay: &mut Replay, port: u64, flows: u64) -> Result<Cost> {
        self.visited.insert(port);
        let made = self.made();
        let mut plan = self.opening(port);
        let mut same = plan;
        let raw = self.packets(replay, &mut plan, flows)?;
        self.next += flows;
        let made = self.made() - made;
        ensure!(
            flows.saturating_sub(made) <= flows / HALF_FULL_HOMELESS,
            "{made} flows were made of {flows}"
        );
        Ok(Cost {
            raw,
            floor: floor(replay, &mut same, flows)?,
        })
    }

    /// Whether services and backends have had their shares of the packets; else the row is not what its name says.
    ///
    /// # Errors
    /// Where one has had none, or too many less than half their share: the flow of a few has no entry.
    pub(super) fn check_shares(&mut self) -> Result<()> {
        let (services, backends) = (self.size.services, self.size.backends);
        let visited = |number: &u16| {
            services <= ADDRESSES || self.visited.contains(&u64::from(number / ADDRESSES))
        };
        let of_services: Vec<_> = (0..services)
            .filter(visited)
            .map(|number| self.program.service_counters(u32::from(number) + 1))
            .collect();
        let of_backends: Vec<_> = (0..backends)
            .filter(visited)
            .map(|number| self.program.backend_counters(number + 1))
            .collect();
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

    /// Makes flows, both directions heard.
    fn establish(&mut self, replay: &mut Replay, port: u64, flows: Range<u64>) -> Result<()> {
        for step in [Step::Open, Step::Answer, Step::Confirm] {
            self.run(replay, step, port, flows.clone())?;
        }
        Ok(())
    }

    /// First packets of the flows that have not been.
    fn opening(&self, port: u64) -> Plan {
        let mut plan = plan(self.kind(Step::Open, port, 0)).in_sequence(u64::MAX);
        plan.next = self.next;
        plan
    }

    /// Runs a packet of each flow.
    fn run(&mut self, replay: &mut Replay, step: Step, port: u64, flows: Range<u64>) -> Result<()> {
        for flows in self.blocks(step, &flows) {
            let mut plan = plan(self.kind(step, port, flows.start)).in_sequence(u64::MAX);
            plan.next = flows.start;
            self.packets(replay, &mut plan, flows.end - flows.start)?;
        }
        Ok(())
    }

    /// Nanoseconds of a packet of a plan; an error where they did not go where they should.
    fn packets(&mut self, replay: &mut Replay, plan: &mut Plan, packets: u64) -> Result<f64> {
        let run = replay.run(&self.entry, plan, packets)?;
        self.judge(packets, &run)?;
        Ok(run.ns)
    }

    /// Whether packets went where they should.
    fn judge(&mut self, packets: u64, run: &Run) -> Result<()> {
        // What was dropped has kept its address, so it is among the strays too.
        let strays = run.tally.strays.iter().sum();
        let astray = packets.saturating_sub(run.tally.actions[TX]).max(strays);
        let homeless = if self.size.others == 0 {
            HOMELESS
        } else {
            HALF_FULL_HOMELESS
        };
        ensure!(
            astray <= packets / homeless,
            "{astray} of {packets} packets went elsewhere: {:?}",
            self.program.verdicts()
        );
        Ok(())
    }

    /// The flows of a run, apart where their backends have different ports and the packet comes from there.
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

    /// The packet of a step for flows from `first` on, with services at the port whose turn it is.
    fn kind(&self, step: Step, turn: u64, first: u64) -> Kind {
        let several = |first: Ipv4Addr, number: u16| Address {
            first: u32::from_ne_bytes(first.octets()),
            mask: u32::from(number.min(ADDRESSES)) - 1,
        };
        let vips = several(FIRST_VIP, self.size.services);
        let backends = several(FIRST_BACKEND, self.size.backends);
        let kind = step.kind(Protocol::Tcp);
        let (other, rewritten, port) = if kind.reverse == 0 {
            let number = turn * u64::from(ADDRESSES) % u64::from(self.size.services);
            (vips, backends, service(short(number)).port())
        } else {
            let number = if self.size.services > ADDRESSES {
                turn * u64::from(ADDRESSES)
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
    fn made(&self) -> u64 {
        let services = 1..=u32::from(self.size.services);
        services
            .map(|row| self.program.service_counters(row).new_flows)
            .sum()
    }
}

fn floor(replay: &mut Replay, plan: &mut Plan, packets: u64) -> Result<f64> {
    let floor = replay.floor.try_clone()?;
    Ok(replay.run(&floor, plan, packets)?.ns)
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
