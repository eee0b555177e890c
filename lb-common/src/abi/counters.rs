//! What programs count, and the events that they send to the agent.

use core::mem::offset_of;

use super::{MAX_BACKENDS, MAX_SERVICES, MAX_TABLE_EVENTS, MAX_VERDICTS};

/// Row of `COUNTERS`, one for each CPU, which alone writes it: all that it counts, so that one lookup serves a packet.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Packets by [`crate::verdict::Verdict::index`].
    pub verdicts: [u64; MAX_VERDICTS as usize],
    /// What happened to the flow table, by [`crate::table::Event`].
    pub table: [u64; MAX_TABLE_EVENTS as usize],
    /// By row of the services.
    pub services: [FlowCounters; MAX_SERVICES as usize],
    /// By row of the backends.
    pub backends: [FlowCounters; MAX_BACKENDS as usize],
}

/// What is counted of a service or a backend. All grow only.
///
/// Forward is client to backend. Bytes count whole frames as received, Ethernet header included.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Frames towards backends.
    pub forward_packets: u64,
    /// Bytes towards backends.
    pub forward_bytes: u64,
    /// Frames towards clients.
    pub reverse_packets: u64,
    /// Bytes towards clients.
    pub reverse_bytes: u64,
    /// Flows made.
    pub new_flows: u64,
    /// Reserved, zero.
    pub reserved: [u64; 3],
}

/// Row of `CURSORS`: the round-robin position of a service, alone in its cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Number of the service's next flow.
    pub next: u64,
    /// Fills the line.
    pub padding: [u64; 7],
}

/// Row of `RATE_LIMITS`, one for each CPU: what was sent in the second that began at `since`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateWindow {
    /// Low 32 bits of `jiffies64` when the window was opened.
    pub since: u32,
    /// Answers sent in it.
    pub sent: u32,
}

/// Record in `EVENTS`: packets wait for the way towards this backend.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourWanted {
    /// Row of `BACKENDS`.
    pub backend: u32,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<FlowCounters>() == 64);
// Each of its tables begins at a cache line.
const _: () = assert!(offset_of!(Counters, table) == 512 && offset_of!(Counters, services) == 640);
const _: () = assert!(size_of::<Counters>() == 640 + 64 * (MAX_SERVICES + MAX_BACKENDS) as usize);
const _: () = assert!(size_of::<Cursor>() == 64);
const _: () = assert!(size_of::<RateWindow>() == 8);
const _: () = assert!(size_of::<NeighbourWanted>() == 8);
