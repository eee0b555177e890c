//! The tables that the program is measured on: two services of one VIP, their backends, and flows made by packets.
//!
//! Nothing here knows what the flow table looks like. A flow is made as in life, by a handshake or by a datagram and
//! its answer, through the program itself. The client is behind the interface that the backends are behind, so that
//! every packet leaves by `XDP_TX`.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{FlowCounters, Protocol};

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
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let rows = backend_rows(protocol);
            for (row, address) in rows.clone().zip(0u32..) {
                let address = Ipv4Addr::from_bits(FIRST_BACKEND.to_bits() + address);
                let address = SocketAddrV4::new(address, backend_port(protocol));
                let [.., last] = address.ip().octets();
                program.set_backend(row, address, Some((Mac([2, 0, 0, 0, 1, last]), INGRESS)))?;
            }
            let rows: Vec<u16> = rows.collect();
            let address = SocketAddrV4::new(VIP, service_port(protocol));
            program.set_service(service(protocol), address, protocol, &rows)?;
        }
        let entry = program.entry()?;
        Ok(Self { program, entry })
    }

    /// Makes flows 0 to `flows`, both directions heard.
    ///
    /// # Errors
    /// Where a packet did not reach the backend of its flow.
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
            let (run, _) = self.run(replay, protocol, &mut plan, flows)?;
            ensure!(
                run.tally.strays == [0; 2],
                "making {flows} flows: {:?} packets went astray",
                run.tally.strays
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
        let counters = self.program.service_counters(service(protocol))?;
        let verdicts = self.program.verdicts()?;
        let run = replay
            .run(&self.entry, plan, packets)
            .context("running `lb`")?;
        let seen = Seen {
            counters: grown(
                &counters,
                &self.program.service_counters(service(protocol))?,
            ),
            verdicts: verdicts
                .into_iter()
                .zip(self.program.verdicts()?)
                .map(|((name, before), (_, after))| (name, after - before))
                .filter(|(_, packets)| *packets > 0)
                .collect(),
        };
        Ok((run, seen))
    }
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
