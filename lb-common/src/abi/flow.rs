//! Rows of the flow table. Only programs write them; the agent maps the table read-only.
//!
//! Addresses and ports are the packet's bytes read as one word in native order, so that no instruction is spent on
//! their order; [`FlowKey::new`] and the accessors translate for the host.

use core::net::{Ipv4Addr, SocketAddrV4};

/// Entries of a bucket.
pub const WAYS: u32 = 4;

/// The 5-tuple of a packet as it is seen on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address in the low half, destination address in the high half.
    pub addresses: u64,
    /// Source port, destination port, protocol, from the lowest bits; 40 bits in all.
    pub rest: u64,
}

impl FlowKey {
    /// Bits of [`FlowKey::rest`]; the others of that word of an entry hold its state.
    pub const REST: u64 = 0xff_ffff_ffff;

    /// The key of packets from `source` to `destination`.
    #[must_use]
    pub const fn new(source: SocketAddrV4, destination: SocketAddrV4, protocol: u8) -> Self {
        Self::from_words(
            u32::from_ne_bytes(source.ip().octets()),
            u32::from_ne_bytes(destination.ip().octets()),
            (source.port().to_be(), destination.port().to_be()),
            protocol,
        )
    }

    /// The key, of the words as a packet holds them.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(
        source: u32,
        destination: u32,
        ports: (u16, u16),
        protocol: u8,
    ) -> Self {
        Self {
            addresses: source as u64 | (destination as u64) << 32,
            rest: ports.0 as u64 | (ports.1 as u64) << 16 | (protocol as u64) << 32,
        }
    }

    /// Whether an entry's word [`field::REST`] holds this key's rest.
    #[must_use]
    #[inline(always)]
    pub const fn has_rest(&self, word: u64) -> bool {
        (word ^ self.rest) << Self::REST.leading_zeros() == 0
    }

    /// Source address, as in the packet.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub const fn source_word(&self) -> u32 {
        self.addresses as u32
    }

    /// Destination address, as in the packet.
    #[must_use]
    #[inline(always)]
    pub const fn destination_word(&self) -> u32 {
        (self.addresses >> 32) as u32
    }

    /// Source port, as in the packet.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits")]
    pub const fn source_port(&self) -> u16 {
        self.rest as u16
    }

    /// Destination port, as in the packet.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits from the middle")]
    pub const fn destination_port(&self) -> u16 {
        (self.rest >> 16) as u16
    }

    /// IP protocol number.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "8 bits from the middle")]
    pub const fn protocol(&self) -> u8 {
        (self.rest >> 32) as u8
    }

    /// Source address, port and protocol as [`crate::filter::place_of_endpoint`] takes them.
    #[must_use]
    #[inline(always)]
    pub const fn source_endpoint(&self) -> (u32, u32) {
        (
            self.source_word(),
            self.source_port() as u32 | (self.protocol() as u32) << 16,
        )
    }

    /// Destination address, port and protocol as [`crate::filter::place_of_endpoint`] takes them.
    #[must_use]
    #[inline(always)]
    pub const fn destination_endpoint(&self) -> (u32, u32) {
        (
            self.destination_word(),
            ((self.rest & Self::REST) >> 16) as u32,
        )
    }

    /// Where the packets come from.
    #[must_use]
    pub const fn source(&self) -> SocketAddrV4 {
        socket(self.source_word(), self.source_port())
    }

    /// Where the packets are addressed to.
    #[must_use]
    pub const fn destination(&self) -> SocketAddrV4 {
        socket(self.destination_word(), self.destination_port())
    }
}

/// One direction of a flow: eight words, a cache line.
///
/// Word by word: tag; addresses of the key; the key's rest, then state and flags; new address, new port and the IPv4
/// delta; transport delta, backend and its generation; service and last-seen; way or ingress print; partner.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// See [`field`].
    pub words: [u64; 8],
}

/// Places of the words of a [`FlowEntry`].
pub mod field {
    /// Even is stable, odd is being written, 0 was never used; grows by 2 with each tenant.
    pub const TAG: usize = 0;
    /// [`super::FlowKey::addresses`].
    pub const ADDRESSES: usize = 1;
    /// [`super::FlowKey::rest`], from bit 40 the state, bit 48 the direction, above it a print of the tenant's
    /// tag.
    pub const REST: usize = 2;
    /// New address (32 bits), new port (16), what the address and a hop add to the sum of the IPv4 header (16).
    pub const REWRITE: usize = 3;
    /// What they add to the transport checksum (16), row of `BACKENDS` (16), its generation (16).
    pub const BINDING: usize = 4;
    /// Row of `SERVICES` (32), low half of `jiffies64` when a packet last used the entry (32).
    pub const SERVICE: usize = 5;
    /// Reverse: the way to the client, a [`super::super::word::Way`]. Forward: the print of where its packets come from.
    pub const WAY: usize = 6;
    /// Index of the entry of the other direction.
    pub const PARTNER: usize = 7;
}

/// Bits of an entry's third word above the key.
pub mod meta {
    /// Lowest bit of [`crate::flow::State`].
    pub const STATE: u32 = 40;
    /// Lowest bit of the tenant's print: what is left of its tag. Whoever swaps the word for one with a new state misses
    /// where the entry has another tenant by now, though that one's ports and state may be the same.
    pub const TENANT: u32 = 49;
    /// The entry rewrites replies of a backend; without it, packets of a client.
    pub const REVERSE: u64 = 1 << 48;
}

/// A bucket: four entries, one after the other.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowBucket {
    /// The ways, filled from the first.
    pub entries: [FlowEntry; WAYS as usize],
}

/// A pair of buckets: what an insert, or a search that will find nothing, has to know of eight entries without looking at
/// them. Row of `FLOW_PAIRS`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairRow {
    /// Bits of [`pair`].
    pub flags: u16,
    /// When a flow of the pair last found no room, as [`crate::table::stamp`] has it.
    pub overflowed: u16,
    /// Low half of `jiffies64` until which no entry of the pair may be evicted, as far as is known; 0 where nothing is.
    pub full_until: u32,
    /// Of each place a print of its key in a byte, 0 where it is free. The ways of the even bucket come first, from the lowest
    /// byte on.
    pub prints: u64,
}

/// Entries of a pair of buckets.
pub const PAIR: u32 = 2 * WAYS;

/// Bits of [`PairRow::flags`].
pub mod pair {
    /// An insert is at work.
    pub const HELD: u16 = 1;
    /// A flow of the pair was ever put into its second pair.
    pub const SPILLED: u16 = 1 << 1;
}

/// The recipe of one direction: what a hit copies out of its entry before it touches the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Word [`field::REST`].
    pub rest: u64,
    /// Word [`field::REWRITE`].
    pub rewrite: u64,
    /// Word [`field::BINDING`].
    pub binding: u64,
    /// Word [`field::SERVICE`].
    pub service: u64,
    /// Word [`field::WAY`].
    pub way: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each part of a word is taken on purpose"
)]
impl Recipe {
    /// [`crate::flow::State`], as a byte.
    #[must_use]
    #[inline(always)]
    pub const fn state(&self) -> u8 {
        (self.rest >> meta::STATE) as u8
    }

    /// [`Recipe::role`] of a client's packets in [`crate::flow::State::Established`].
    pub const ESTABLISHED_FORWARD: u64 = crate::flow::State::Established as u64;
    /// [`Recipe::role`] of replies in that state.
    pub const ESTABLISHED_REVERSE: u64 = Self::ESTABLISHED_FORWARD | meta::REVERSE >> meta::STATE;

    /// State and direction in one.
    #[must_use]
    #[inline(always)]
    pub const fn role(&self) -> u64 {
        (self.rest >> meta::STATE) & ((1 << (meta::TENANT - meta::STATE)) - 1)
    }

    /// Whether packets are replies.
    #[must_use]
    #[inline(always)]
    pub const fn is_reverse(&self) -> bool {
        self.rest & meta::REVERSE != 0
    }

    /// New address: the destination's, or in a reply the source's.
    #[must_use]
    #[inline(always)]
    pub const fn address(&self) -> u32 {
        self.rewrite as u32
    }

    /// New port.
    #[must_use]
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        (self.rewrite >> 32) as u16
    }

    /// To add to the one's complement sum of the IPv4 header: new address, and a TTL lower by one.
    #[must_use]
    #[inline(always)]
    pub const fn delta_ip(&self) -> u16 {
        (self.rewrite >> 48) as u16
    }

    /// To add to that of the transport checksum.
    #[must_use]
    #[inline(always)]
    pub const fn delta_transport(&self) -> u16 {
        self.binding as u16
    }

    /// Row of `BACKENDS`.
    #[must_use]
    #[inline(always)]
    pub const fn backend(&self) -> u16 {
        (self.binding >> 16) as u16
    }

    /// Generation of that row when the flow was made.
    #[must_use]
    #[inline(always)]
    pub const fn backend_generation(&self) -> u16 {
        (self.binding >> 32) as u16
    }

    /// Row of `SERVICES`.
    #[must_use]
    #[inline(always)]
    pub const fn service(&self) -> u32 {
        self.service as u32
    }

    /// Low half of `jiffies64` when a packet last used the entry.
    #[must_use]
    #[inline(always)]
    pub const fn last_seen(&self) -> u32 {
        (self.service >> 32) as u32
    }

    /// The recipe as it would be if a packet had last used it then.
    #[must_use]
    #[inline(always)]
    pub const fn used_at(self, ticks: u32) -> Self {
        Self {
            service: self.service() as u64 | (ticks as u64) << 32,
            ..self
        }
    }

    /// The new address and port.
    #[must_use]
    pub const fn rewritten(&self) -> SocketAddrV4 {
        socket(self.address(), self.port())
    }
}

/// Print of where a packet came from: its source MAC address in the low 48 bits, above it the frame's type mixed with
/// the low 16 bits of the interface's index. Address and type come as the eight bytes that they are in the frame.
#[must_use]
#[inline(always)]
pub const fn ingress_print(source_and_type: u64, ifindex: u32) -> u64 {
    source_and_type ^ (ifindex as u64) << 48
}

impl FlowEntry {
    /// Index of the entry of the other direction.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the word holds 32 bits")]
    pub const fn partner(&self) -> u32 {
        self.words[field::PARTNER] as u32
    }

    /// The entry as it stands in a snapshot; `None` where it is free or was caught while being written.
    #[must_use]
    pub fn read(&self) -> Option<(FlowKey, Recipe)> {
        let words = &self.words;
        let key = FlowKey {
            addresses: words[field::ADDRESSES],
            rest: words[field::REST] & FlowKey::REST,
        };
        let free = words[field::TAG] == 0 || words[field::TAG] & 1 == 1 || key.addresses == 0;
        (!free).then_some((
            key,
            Recipe {
                rest: words[field::REST],
                rewrite: words[field::REWRITE],
                binding: words[field::BINDING],
                service: words[field::SERVICE],
                way: words[field::WAY],
            },
        ))
    }
}

const fn socket(address: u32, port: u16) -> SocketAddrV4 {
    let octets = address.to_ne_bytes();
    SocketAddrV4::new(
        Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]),
        u16::from_be(port),
    )
}

const _: () = assert!(size_of::<FlowEntry>() == 64);
const _: () = assert!(size_of::<FlowBucket>() == 256);
const _: () = assert!(size_of::<PairRow>() == 16);

#[cfg(test)]
mod tests;
