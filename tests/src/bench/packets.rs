//! The packets of the rows: what a client or a backend sends, as plans for the programs that make them.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::abi::Protocol;

use super::plan::{Address, FRAME, Kind, Plan};
use super::world::{BACKENDS, FIRST_BACKEND, backend_port, service_port};
use crate::frames::{Frame, TcpFlags};
use crate::program::OUR_MAC;

/// Address of both services.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// An address that is nobody's here.
pub(super) const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// A port of the VIP without a service.
pub(super) const OTHER_PORT: u16 = 81;
/// Flows that have a client of their own: 2^20 addresses with 2^15 ports each.
const MAX_FLOWS: u64 = 1 << 35;
/// The shortest TCP segment and UDP datagram, filled up to the shortest frame.
const PADDING: [u8; 18] = [0; 18];

/// A packet of a flow's life.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// SYN, or a client's datagram.
    Open,
    /// SYN and ACK, or a backend's datagram.
    Answer,
    /// ACK of a client, or a datagram.
    Confirm,
    /// ACK of a backend, or a datagram.
    Deliver,
}

impl Step {
    /// The packet of this step, to or from the flow's backend.
    pub(super) fn kind(self, protocol: Protocol) -> Kind {
        let flags = match self {
            Self::Open => TcpFlags::SYN,
            Self::Answer => TcpFlags::SYN | TcpFlags::ACK,
            Self::Confirm | Self::Deliver => TcpFlags::ACK,
        };
        let backends = Address {
            first: u32::from_ne_bytes(FIRST_BACKEND.octets()),
            mask: u32::from(BACKENDS) - 1,
        };
        let to_the_service = towards(VIP, service_port(protocol), protocol, flags);
        match self {
            Self::Open | Self::Confirm => Kind {
                rewritten: backends,
                ..to_the_service
            },
            Self::Answer | Self::Deliver => Kind {
                reverse: 1,
                other: backends,
                other_port: backend_port(protocol).to_be().into(),
                rewritten: fixed(VIP),
                ..to_the_service
            },
        }
    }
}

/// A client's packet to this address and port, which no program rewrites.
pub(super) fn towards(address: Ipv4Addr, port: u16, protocol: Protocol, flags: TcpFlags) -> Kind {
    // The addresses and ports are the plan's to fill in.
    let nobody = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let frame = match protocol {
        Protocol::Tcp => Frame::tcp(nobody, nobody)
            .flags(flags)
            .trailer(&PADDING[..6]),
        Protocol::Udp => Frame::udp(nobody, nobody).payload(&PADDING),
    };
    Kind {
        other: fixed(address),
        other_port: port.to_be().into(),
        rewritten: fixed(address),
        ..of_frame(&frame)
    }
}

/// A question for an address, broadcast.
pub(super) fn arp() -> Kind {
    of_frame(&Frame::arp_request(Ipv4Addr::UNSPECIFIED, VIP).trailer(&PADDING))
}

/// A plan of one kind of packet.
pub(super) fn plan(kind: Kind) -> Plan {
    Plan {
        kinds: [kind; 2],
        next: 0,
        random: 0x5eed,
        wanted_port: 0,
    }
}

/// The first packets of flows that have not been, from flow 0 on.
pub(super) fn opening(protocol: Protocol) -> Plan {
    plan(Step::Open.kind(protocol)).in_sequence(MAX_FLOWS)
}

impl Plan {
    /// Flows 0 to `flows` one after the other, and again.
    pub(super) fn in_sequence(mut self, flows: u64) -> Self {
        for kind in &mut self.kinds {
            kind.random = 0;
            kind.flows = flows;
        }
        self
    }

    /// Flows 0 to `flows` at random.
    pub(super) fn at_random(mut self, flows: u32) -> Self {
        for kind in &mut self.kinds {
            kind.random = 1;
            kind.flows = flows.into();
        }
        self
    }

    /// Nine packets of ten on one flow of a hundred.
    pub(super) fn skewed(mut self, flows: u32) -> Self {
        self = self.at_random(flows);
        for kind in &mut self.kinds {
            kind.hot_share = 1024 * 9 / 10;
            kind.hot_stride = 100;
            kind.hot_flows = flows / kind.hot_stride;
        }
        self
    }
}

impl Kind {
    /// Addresses, ports and sequence number of a flow's packet, as words of the frame.
    pub(super) fn key(&self, flow: u64) -> [u32; 4] {
        const SEQUENCE_NUMBER: usize = 38;
        let [source, destination] = halves(self.addresses(flow));
        let sequence = std::array::from_fn(|byte| self.frame[SEQUENCE_NUMBER + byte]);
        [
            source,
            destination,
            self.ports(flow),
            u32::from_ne_bytes(sequence),
        ]
    }
}

fn of_frame(frame: &Frame) -> Kind {
    let bytes = frame.clone().destination_mac(OUR_MAC).bytes();
    assert_eq!(bytes.len(), FRAME, "{frame:?}");
    let mut row = [0; 64];
    row[..FRAME].copy_from_slice(&bytes);
    Kind {
        frame: row,
        flows: 1,
        random: 0,
        hot_share: 0,
        hot_flows: 0,
        hot_stride: 0,
        reverse: 0,
        other_port: 0,
        other: fixed(VIP),
        rewritten: fixed(VIP),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each half is taken on purpose"
)]
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn fixed(address: Ipv4Addr) -> Address {
    Address {
        first: u32::from_ne_bytes(address.octets()),
        mask: 0,
    }
}

#[cfg(test)]
mod tests {
    use lb_common::filter;

    use super::*;
    use crate::bench::world::backend_addresses;

    #[test]
    fn the_stranger_is_not_taken_for_one_of_ours() {
        let place = |address: Ipv4Addr| filter::place(u32::from_ne_bytes(address.octets()));
        for ours in backend_addresses().chain([VIP]) {
            assert_ne!(place(ours), place(STRANGER), "{ours}");
        }
    }

    #[test]
    fn flows_have_clients_of_their_own() {
        let kind = Step::Open.kind(Protocol::Tcp);
        let mut keys: Vec<_> = (0..100_000).map(|flow| kind.key(flow * 37)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 100_000);
    }
}
