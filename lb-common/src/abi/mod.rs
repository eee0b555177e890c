//! The bytes of every map: what the agent and the kernel program agree on.
//!
//! Every structure is `#[repr(C)]` with explicit padding and an assertion on its size. Addresses are 16 bytes in
//! control maps (an IPv4 address is written as IPv4-mapped IPv6, RFC 4291 section 2.5.5.2) and 4 bytes in the IPv4
//! flow table. A field that a packet may be reading while it changes lives in one aligned word; see [`word`].

pub mod command;
mod control;
mod counters;
mod flow;
mod ids;
pub mod word;

pub use control::{
    BackendRow, ConfigRow, Control, InterfaceRow, Mode, Protocol, Scheduler, ServiceKey,
    ServiceRow, address_bytes, address_from_bytes,
};
pub use counters::{Counters, Cursor, FlowCounters, NeighbourWanted, RateWindow};
pub use flow::{
    FlowBucket, FlowEntry, FlowKey, PAIR, PairRow, Recipe, WAYS, field, ingress_print, meta, pair,
};
pub use ids::{BackendId, InterfaceSlot, ServiceId};

/// Changes with every change to the bytes of a pinned map; an agent refuses maps of another version.
pub const LAYOUT_VERSION: u32 = 8;

/// Rows of services, a power of two; row 0 is never used.
pub const MAX_SERVICES: u32 = 8_192;
/// Rows of backends, a power of two; row 0 is never used. Twice the 4,096 a configuration may hold, so that ids can rest before reuse.
pub const MAX_BACKENDS: u32 = 8_192;
/// Rows of `INTERFACES`; row 0 is never used. Twice the 16 a configuration may hold.
pub const MAX_INTERFACES: u32 = 32;
/// Places of our MAC addresses by interface index, a power of two.
pub const OWN_MACS: u32 = 1 << 10;
/// Slots in the arena that all services share.
pub const MAX_SLOTS: u32 = 1 << 20;
/// 64-bit words of `FILTER`: the first half for addresses, the second for endpoints.
pub const FILTER_WORDS: u32 = 1 << 11;
/// Counters of verdicts, a power of two.
pub const MAX_VERDICTS: u32 = 64;
/// Rows of `RATE_LIMITS`: ICMP errors, events for the agent.
pub const MAX_RATE_LIMITS: u32 = 2;
/// What a CPU may send of each in a second.
pub const RATE_LIMIT: u32 = 100;
/// Counters of what happens to the flow table, a power of two.
pub const MAX_TABLE_EVENTS: u32 = 16;
/// Buckets of `OVERFLOW`, a power of two.
pub const OVERFLOW_BUCKETS: u32 = 1 << 14;
/// Entries of `FLOWS` where the configuration does not say; a flow in mode `nat` takes two.
pub const DEFAULT_FLOW_ENTRIES: u32 = 1 << 18;
