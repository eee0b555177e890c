//! One step from what the maps hold to what they should hold.

use std::net::SocketAddr;

use lb_common::abi::{
    BackendId, ConfigRow, InterfaceRow, InterfaceSlot, ServiceId, ServiceKey, ServiceRow,
    word::{BackendState, Slot, SlotRange, Way},
};

/// A write to one map. Each says the value that is to be there, so applying one twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What may change while the program runs.
    Config(ConfigRow),
    /// A row of `INTERFACES`; each of its words is published on its own.
    Interface {
        /// The row.
        slot: InterfaceSlot,
        /// Its contents.
        row: InterfaceRow,
    },
    /// An entry of `DEVICES`; `None` removes it.
    Device {
        /// The entry.
        slot: InterfaceSlot,
        /// Kernel index of the interface to send from.
        ifindex: Option<u32>,
    },
    /// Zeroes the counters of a row of `BACKENDS` that has no tenant.
    ClearBackendCounters(BackendId),
    /// A new tenant of a row of `BACKENDS`: address, then the way, then port and state.
    Backend {
        /// The row.
        id: BackendId,
        /// The tenant.
        address: SocketAddr,
        /// The way towards it.
        way: Way,
        /// Its state.
        state: BackendState,
    },
    /// The way in a row of `BACKENDS`.
    BackendWay {
        /// The row.
        id: BackendId,
        /// The way from now on.
        way: Way,
    },
    /// The state in a row of `BACKENDS`.
    BackendState {
        /// The row.
        id: BackendId,
        /// The state.
        state: BackendState,
    },
    /// A word of `FILTER`.
    Filter {
        /// The word.
        index: u32,
        /// Its bits.
        bits: u64,
    },
    /// Fills a range of `SLOTS` that no service names.
    Slots {
        /// First slot.
        offset: u32,
        /// Contents.
        slots: Vec<Slot>,
    },
    /// Zeroes the counters of a row of `SERVICES` that has no tenant.
    ClearServiceCounters(ServiceId),
    /// A whole row of `SERVICES`, word by word, the slots last; no key names a row that changes its tenant.
    Service {
        /// The row.
        id: ServiceId,
        /// Its contents.
        row: ServiceRow,
    },
    /// The slots of a service.
    ServiceSlots {
        /// The row.
        id: ServiceId,
        /// The range from now on.
        range: SlotRange,
    },
    /// An entry of `SERVICE_KEYS`.
    Key {
        /// The key.
        key: ServiceKey,
        /// Row of `SERVICES`, or [`ServiceKey::VIP_MARKER`].
        value: u32,
    },
    /// Removes an entry of `SERVICE_KEYS`.
    RemoveKey(ServiceKey),
}
