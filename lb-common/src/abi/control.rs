//! Rows of the control maps. Only the agent writes them.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    FILTER_WORDS, MAX_BACKENDS, MAX_INTERFACES, MAX_SERVICES, OWN_MACS,
    word::{BackendState, SlotRange, Way},
};

/// `CONTROL[0]`: the tables that a packet reads, in one memory that the program addresses without a lookup.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// What may change while the program runs.
    pub config: ConfigRow,
    /// Our MAC address by the kernel's index of the interface, modulo the table's length; as in [`InterfaceRow::mac`]. A packet on the fast
    /// path is addressed to us where it says so. Where two interfaces share a place, one has it, and the other's packets are looked at closely.
    pub own_macs: [u64; OWN_MACS as usize],
    /// `INTERFACES`; row 0 is never used.
    pub interfaces: [InterfaceRow; MAX_INTERFACES as usize],
    /// `FILTER`; see [`crate::filter`].
    pub filter: [u64; FILTER_WORDS as usize],
    /// `BACKENDS`; row 0 is never used.
    pub backends: [BackendRow; MAX_BACKENDS as usize],
    /// `SERVICES`; row 0 is never used.
    pub services: [ServiceRow; MAX_SERVICES as usize],
    /// How often `SERVICE_KEYS` was changed, counted after each change: what a CPU remembers of an earlier state is void.
    pub keys_version: u64,
}

impl Control {
    /// Tables that say nothing.
    // SAFETY: integers, for all of which zero is a value.
    pub const EMPTY: Self = unsafe { core::mem::zeroed() };
}

/// What may change while the program runs. Every field is read on its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigRow {
    /// [`super::LAYOUT_VERSION`] of the maps beside this one.
    pub layout_version: u32,
    /// Ticks of `jiffies` a second, measured by the agent.
    pub ticks_per_second: u32,
    /// [`ConfigRow::HOST_FORWARDS`].
    pub flags: u32,
    /// Rows of `INTERFACES` in use are 1 to this number.
    pub interfaces: u32,
    /// Seed of the flow table's hash: a secret of the instance, the same for as long as the table lives.
    pub flow_seed: u64,
    /// Reserved, zero.
    pub reserved: [u64; 5],
}

impl ConfigRow {
    /// The host routes IPv4 (`net.ipv4.ip_forward`), so a rewritten packet may go up the stack to find its neighbour.
    pub const HOST_FORWARDS: u32 = 1;
}

/// Key of `SERVICE_KEYS`.
///
/// A VIP has, beside its services, the key `(VIP, 0, ICMP)`, and for each protocol it serves `(VIP, 0, protocol)`; their
/// value is [`ServiceKey::VIP_MARKER`]. They tell a malformed packet or an echo request for a VIP from foreign traffic.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The VIP, IPv4-mapped where it is IPv4.
    pub vip: [u8; 16],
    /// Port in network byte order.
    pub port_be: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
}

impl ServiceKey {
    /// Value of a key that marks an address as a VIP without naming a service.
    pub const VIP_MARKER: u32 = u32::MAX;
    /// The port in a marker's key.
    pub const NO_PORT: [u8; 2] = [0; 2];

    /// The key of a service.
    #[must_use]
    #[inline(always)]
    pub const fn new(vip: [u8; 16], port_be: [u8; 2], protocol: u8) -> Self {
        Self {
            vip,
            port_be,
            protocol,
            padding: 0,
        }
    }
}

/// Writes an address as control maps hold it.
#[must_use]
pub const fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Reads an address as control maps hold it.
#[must_use]
pub const fn address_from_bytes(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from_octets(bytes).to_canonical()
}

/// Transport protocol of a service, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// Destination rewritten, client address kept; replies come back through the balancer.
    Nat = 1,
}

/// How a new flow finds its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scheduler {
    /// Slot `k mod n` for the service's flow number `k`, over all CPUs.
    RoundRobin = 1,
}

/// Row of `SERVICES`. `slots` is published by one aligned store; all else is written before a key names the row.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceRow {
    /// [`SlotRange`].
    pub slots: u64,
    /// The VIP.
    pub vip: [u8; 16],
    /// Port in network byte order.
    pub port_be: [u8; 2],
    /// [`Protocol`].
    pub protocol: u8,
    /// [`Mode`].
    pub mode: u8,
    /// [`Scheduler`].
    pub scheduler: u8,
    /// 1 while a service owns the row, or flows of a removed one still refer to it.
    pub in_use: u8,
    /// Grows by one each time the row gets a new tenant.
    pub generation: u16,
    /// Reserved, zero.
    pub reserved: [u64; 4],
}

impl ServiceRow {
    /// The range of slots in force.
    #[must_use]
    pub const fn range(&self) -> SlotRange {
        SlotRange::unpack(self.slots)
    }
}

/// Row of `BACKENDS`. `state` and `way` are published by an aligned store each; address, port and the first way are written
/// before a slot names the row. Two rows fill a cache line.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendRow {
    /// [`BackendState`].
    pub state: u32,
    /// Port in network byte order.
    pub port_be: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
    /// [`Way`] towards the backend; without [`Way::RESOLVED`] while the agent does not know it.
    pub way: u64,
    /// The backend's address.
    pub address: [u8; 16],
}

impl BackendRow {
    /// The row of a new tenant.
    #[must_use]
    pub const fn new(address: SocketAddr, way: Way, state: BackendState) -> Self {
        Self {
            state: state.pack(),
            port_be: address.port().to_be_bytes(),
            padding: [0; 2],
            way: way.pack(),
            address: address_bytes(address.ip()),
        }
    }

    /// The state in force.
    #[must_use]
    pub const fn state(&self) -> BackendState {
        BackendState::unpack(self.state)
    }

    /// The way in force.
    #[must_use]
    pub const fn way(&self) -> Way {
        Way::unpack(self.way)
    }
}

/// Row of `INTERFACES`; each word is published by one aligned store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceRow {
    /// Our MAC address, as [`Way::pack`] writes one: the first byte lowest, the upper 16 bits zero.
    pub mac: u64,
    /// Kernel index; 0 while the interface is gone.
    pub ifindex: u32,
    /// Our IPv4 address there, in network byte order: the source of ICMP errors. Zero where there is none.
    pub ipv4: [u8; 4],
    /// Bytes of the largest frame that may leave, Ethernet header included; [`u32::MAX`] where no limit is known.
    pub max_frame: u32,
    /// Reserved, zero.
    pub padding: u32,
    /// Reserved, zero.
    pub reserved: u64,
}

const _: () = assert!(size_of::<Control>() == 812_160);
const _: () = assert!(size_of::<ConfigRow>() == 64);
const _: () = assert!(size_of::<ServiceKey>() == 20);
const _: () = assert!(size_of::<ServiceRow>() == 64);
const _: () = assert!(size_of::<BackendRow>() == 32);
const _: () = assert!(size_of::<InterfaceRow>() == 32);

#[cfg(test)]
mod tests;
