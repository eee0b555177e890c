//! The plan of a measurement: which packets the programs `replay` and `generate` make. One source for them and for the
//! bench, which includes this file.
//!
//! Flows are numbers. A flow's client follows from its number by arithmetic, and so does its backend, because the flows
//! are made one after the other and round robin deals backends in order; nothing is looked up to make a packet.
//!
//! Addresses and ports are a packet's bytes read as one word in native order.

/// Packets that one round of the program runs.
pub(crate) const PACKETS: u32 = 8;
/// Bytes of every frame: the shortest that Ethernet carries, without its check sequence.
pub(crate) const FRAME: usize = 60;
/// First byte of every client's address.
pub(crate) const CLIENT_NET: u32 = 10;

/// What the program of a round reads, and its own position.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// All packets of a round but the last, and the last.
    pub(crate) kinds: [Kind; 2],
    /// The next flow in sequence.
    pub(crate) next: u64,
    /// State of the generator of random flows.
    pub(crate) random: u64,
    /// Destination port that frames should arrive with.
    pub(crate) wanted_port: u64,
}

/// One kind of packet.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The frame, all but addresses and ports.
    pub(crate) frame: [u8; 64],
    /// Flows 0 to this number are picked.
    pub(crate) flows: u64,
    /// 0: flows in the order of their numbers. 1: at random.
    pub(crate) random: u32,
    /// Of 1,024 random packets so many go to the hot flows.
    pub(crate) hot_share: u32,
    /// Number of hot flows.
    pub(crate) hot_flows: u32,
    /// They are the multiples of this number, so that they are not neighbours in the table.
    pub(crate) hot_stride: u32,
    /// 0: from the client to the other end. 1: from the other end to the client.
    pub(crate) reverse: u32,
    /// Port of the other end.
    pub(crate) other_port: u32,
    /// Address of the other end.
    pub(crate) other: Address,
    /// Address that stands in the other end's place when the packet leaves: what differs is a stray.
    pub(crate) rewritten: Address,
}

/// An address that may depend on the flow: its last byte grows with the flow's number.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    /// The address of flow 0.
    pub(crate) first: u32,
    /// Flow `i` has the address `i & mask` further on; the mask is one less than a power of two.
    pub(crate) mask: u32,
}

/// What became of the packets, counted on each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// By XDP action; the last is "the program was not reached".
    pub(crate) actions: [u64; Tally::ROWS],
    /// Packets that left with another address than [`Kind::rewritten`], of the first kind and of the last.
    pub(crate) strays: [u64; 2],
}

/// Frames that arrived at an end, counted on each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived {
    /// IPv4, to the port that [`Plan::wanted_port`] names.
    pub(crate) wanted: u64,
    /// All others.
    pub(crate) others: u64,
}

impl Tally {
    /// Rows of `actions`, a power of two.
    pub(crate) const ROWS: usize = 8;
}

impl Kind {
    /// Source and destination address of a flow's packet, the source in the low half.
    #[inline(always)]
    pub(crate) const fn addresses(&self, flow: u64) -> u64 {
        let client = client_address(flow) as u64;
        let other = self.other.of(flow) as u64;
        if self.reverse == 0 {
            client | other << 32
        } else {
            other | client << 32
        }
    }

    /// Source and destination port, the source in the low half.
    #[inline(always)]
    pub(crate) const fn ports(&self, flow: u64) -> u32 {
        let client = client_port(flow);
        if self.reverse == 0 {
            client | self.other_port << 16
        } else {
            self.other_port | client << 16
        }
    }
}

impl Address {
    /// The address for a flow.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the mask has 32 bits")]
    pub(crate) const fn of(self, flow: u64) -> u32 {
        // The last byte of an address is the highest of the word.
        self.first + ((flow as u32 & self.mask) << 24)
    }
}

/// The client's address: 2^20 of them before one comes again.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "20 bits are taken")]
const fn client_address(flow: u64) -> u32 {
    CLIENT_NET | (flow as u32 & 0xf_ffff) << 8
}

/// The client's port, 15 bits that differ from client to client and each time that an address comes again.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "15 bits are taken")]
const fn client_port(flow: u64) -> u32 {
    let client = flow as u32 & 0xf_ffff;
    let turn = (flow >> 20) as u32;
    0x8000 | ((turn ^ (client.wrapping_mul(40_503) >> 5)) & 0x7fff)
}
