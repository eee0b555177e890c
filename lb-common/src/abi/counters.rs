//! Rows of the per-CPU counters, and the events that programs send to the agent.

/// Row of `COUNTERS_SERVICES` and `COUNTERS_BACKENDS`, one for each CPU. All grow only.
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
const _: () = assert!(size_of::<Cursor>() == 64);
const _: () = assert!(size_of::<RateWindow>() == 8);
const _: () = assert!(size_of::<NeighbourWanted>() == 8);
