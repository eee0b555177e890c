//! Rows of the flow table. Only programs write them.
//!
//! Addresses and ports are the packet's bytes read as one word in native order, so that no instruction is spent on
//! their order; [`FlowKey::new`] and the accessors translate for the host.

use core::net::{Ipv4Addr, SocketAddrV4};

/// Key of `FLOWS`: the 5-tuple as it is seen on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number, in 32 bits so that the key has no padding.
    pub protocol: u32,
}

impl FlowKey {
    /// The key of packets from `source` to `destination`.
    #[must_use]
    pub const fn new(source: SocketAddrV4, destination: SocketAddrV4, protocol: u8) -> Self {
        Self {
            source: u32::from_ne_bytes(source.ip().octets()),
            destination: u32::from_ne_bytes(destination.ip().octets()),
            source_port: source.port().to_be(),
            destination_port: destination.port().to_be(),
            protocol: protocol as u32,
        }
    }

    /// Where the packets come from.
    #[must_use]
    pub const fn source(&self) -> SocketAddrV4 {
        socket(self.source, self.source_port)
    }

    /// Where the packets are addressed to.
    #[must_use]
    pub const fn destination(&self) -> SocketAddrV4 {
        socket(self.destination, self.destination_port)
    }
}

/// One direction of a flow and its recipe: all that a packet needs to be rewritten.
///
/// `last_seen`, `state` and `way` change while packets read them; each is one aligned store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// Towards a backend its address, which replaces the destination; towards the client the VIP, which replaces the source.
    pub address: u32,
    /// The port that goes with `address`.
    pub port: u16,
    /// [`crate::flow::State`].
    pub state: u8,
    /// [`FlowEntry::REVERSE`].
    pub flags: u8,
    /// To add to the one's complement sum of the IPv4 header for the new address.
    pub delta_ip: u16,
    /// To add to that of the transport checksum for the new address and port.
    pub delta_transport: u16,
    /// Low 32 bits of `jiffies64` when a packet last used the entry.
    pub last_seen: u32,
    /// Row of `BACKENDS`.
    pub backend: u16,
    /// Generation of that row when the flow was made.
    pub backend_generation: u16,
    /// Row of `SERVICES`.
    pub service: u32,
    /// Reverse: the way to the client, a [`super::word::Way`]. Forward: the print of where its packets come from,
    /// [`FlowEntry::ingress_print`]; only when it changes is the reverse entry's way rewritten.
    pub way: u64,
}

impl FlowEntry {
    /// The entry rewrites replies of a backend; without it, packets of a client.
    pub const REVERSE: u8 = 1;

    /// Print of where a packet came from: its source MAC address, given as the four and two bytes it is read in, and
    /// the low 16 bits of the interface's index.
    #[must_use]
    #[inline(always)]
    pub const fn ingress_print(mac_head: u32, mac_tail: u16, ifindex: u32) -> u64 {
        mac_head as u64 | (mac_tail as u64) << 32 | (ifindex as u64) << 48
    }

    /// The new address and port.
    #[must_use]
    pub const fn rewritten(&self) -> SocketAddrV4 {
        socket(self.address, self.port)
    }

    /// Whether the entry rewrites replies.
    #[must_use]
    #[inline(always)]
    pub const fn is_reverse(&self) -> bool {
        self.flags & Self::REVERSE != 0
    }
}

const fn socket(address: u32, port: u16) -> SocketAddrV4 {
    let [a, b, c, d] = address.to_ne_bytes();
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be(port))
}

const _: () = assert!(size_of::<FlowKey>() == 16);
const _: () = assert!(size_of::<FlowEntry>() == 32);
