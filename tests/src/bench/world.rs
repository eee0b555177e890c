//! The tables that the program is measured on: two services of one VIP, their backends, and flows made by packets.
//!
//! Nothing here knows what the flow table looks like. A flow is made as in life, by a handshake or by a datagram and
//! its answer, through the program itself. The client is behind the interface that the backends are behind, so that
//! every packet leaves by `XDP_TX`.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{FlowCounters, Protocol};

use super::micro::HOMELESS;
use super::packets::{Step, VIP, opening, plan};
use super::plan::Plan;
use super::replay::{Replay, Run};
use crate::frames::Mac;
use crate::program::{INGRESS, Program};

/// Address of the first backend; the others follow.
pub(super) const FIRST_BACKEND: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Backends of each service, a power of two.
pub(super) const BACKENDS: u16 = 16;

/// The program with tables and flows.
pub(super) struct World {
    program: Program,
    entry: ProgramFd,
}

/// What a service's counters grew by, and packets by verdict.
#[derive(Default)]
pub(super) struct Seen {
    /// Of the service's counters.
    pub(super) counters: FlowCounters,
    /// Verdicts by name, those that were not reached left out.
    pub(super) verdicts: Vec<(&'static str, u64)>,
}

impl World {
    /// The program with a flow table of so many entries, without flows.
    ///
    /// # Errors
    /// What the kernel says of the program, or those of the maps.
    pub(super) fn new(object: &[u8], flow_entries: u32) -> Result<Self> {
        let mut program = Program::load_with_flow_entries(object, flow_entries)?;
        configure(&mut program, INGRESS)?;
        let entry = program.data_plane()?.fd()?.try_clone()?;
        Ok(Self { program, entry })
    }

    /// Makes flows 0 to `flows`, both directions heard.
    ///
    /// # Errors
    /// Where too many packets did not reach the backends of their flows.
    pub(super) fn establish(
        &mut self,
        replay: &mut Replay,
        protocol: Protocol,
        flows: u64,
    ) -> Result<()> {
        let steps: &[Step] = match protocol {
            Protocol::Tcp => &[Step::Open, Step::Answer, Step::Confirm],
            Protocol::Udp => &[Step::Open, Step::Answer],
        };
        for step in steps {
            let mut plan = plan(step.kind(protocol)).in_sequence(flows);
            let (run, seen) = self.run(replay, protocol, &mut plan, flows)?;
            let astray: u64 = run.tally.strays.iter().sum();
            ensure!(
                astray <= flows / HOMELESS,
                "making {flows} flows: {astray} packets went astray, verdicts {:?}",
                seen.verdicts
            );
        }
        Ok(())
    }

    /// Makes flows 0 to `flows` of which only the first packet was seen, and gives the plan that goes on from there.
    ///
    /// # Errors
    /// Those of the run.
    pub(super) fn open(
        &mut self,
        replay: &mut Replay,
        protocol: Protocol,
        flows: u64,
    ) -> Result<Plan> {
        let mut plan = opening(protocol);
        self.run(replay, protocol, &mut plan, flows)?;
        Ok(plan)
    }

    /// Runs packets of a plan, and tells what a service counted meanwhile.
    ///
    /// # Errors
    /// Those of the run, or of the maps.
    pub(super) fn run(
        &mut self,
        replay: &mut Replay,
        protocol: Protocol,
        plan: &mut Plan,
        packets: u64,
    ) -> Result<(Run, Seen)> {
        let watch = watch(&self.program, protocol);
        let run = replay
            .run(&self.entry, plan, packets)
            .context("running `lb`")?;
        Ok((run, watch.seen(&self.program)))
    }
}

/// What a program had counted before something happened.
pub(super) struct Watch {
    protocol: Protocol,
    counters: FlowCounters,
    verdicts: Vec<(&'static str, u64)>,
}

/// Notes what a program has counted for a service, and by verdict.
pub(super) fn watch(program: &Program, protocol: Protocol) -> Watch {
    Watch {
        protocol,
        counters: program.service_counters(service(protocol)),
        verdicts: program.verdicts(),
    }
}

impl Watch {
    /// What it has counted since.
    pub(super) fn seen(self, program: &Program) -> Seen {
        let counters = program.service_counters(service(self.protocol));
        let verdicts = self.verdicts.into_iter().zip(program.verdicts());
        Seen {
            counters: grown(&self.counters, &counters),
            verdicts: verdicts
                .map(|((name, before), (_, after))| (name, after - before))
                .filter(|(_, packets)| *packets > 0)
                .collect(),
        }
    }
}

/// Writes both services and their backends, which are behind the interface of a slot.
///
/// # Errors
/// Those of the maps.
pub(super) fn configure(program: &mut Program, slot: u8) -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let rows = backend_rows(protocol);
        for (row, address) in rows.clone().zip(backend_addresses()) {
            let [.., last] = address.octets();
            let hop = (Mac([2, 0, 0, 0, 1, last]), slot);
            let address = SocketAddrV4::new(address, backend_port(protocol));
            program.set_backend(row, address, Some(hop))?;
        }
        let rows: Vec<u16> = rows.collect();
        let address = SocketAddrV4::new(VIP, service_port(protocol));
        program.set_service(service(protocol), address, protocol, &rows)?;
    }
    Ok(())
}

/// The addresses of the backends, in the order of the slots.
pub(super) fn backend_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..u32::from(BACKENDS)).map(|number| Ipv4Addr::from_bits(FIRST_BACKEND.to_bits() + number))
}

/// Row of the service of a protocol.
fn service(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    }
}

pub(super) fn service_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 80,
        Protocol::Udp => 53,
    }
}

pub(super) fn backend_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 8080,
        Protocol::Udp => 5353,
    }
}

/// Rows of the service's backends; a backend is an address and a port.
fn backend_rows(protocol: Protocol) -> std::ops::RangeInclusive<u16> {
    match protocol {
        Protocol::Tcp => 1..=BACKENDS,
        Protocol::Udp => BACKENDS + 1..=2 * BACKENDS,
    }
}

fn grown(before: &FlowCounters, after: &FlowCounters) -> FlowCounters {
    FlowCounters {
        forward_packets: after.forward_packets - before.forward_packets,
        forward_bytes: after.forward_bytes - before.forward_bytes,
        reverse_packets: after.reverse_packets - before.reverse_packets,
        reverse_bytes: after.reverse_bytes - before.reverse_bytes,
        new_flows: after.new_flows - before.new_flows,
        reserved: [0; 3],
    }
}
