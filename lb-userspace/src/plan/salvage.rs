//! What of a plan may still be applied when some of its changes can't be.
//!
//! A plan's changes build on each other: a key names a row of a service, which names slots, which name backends. After
//! a failure a change is applied where what it names is in force as planned, so that one map that refuses keeps neither
//! a dead backend in rotation nor another service from its change. Nothing is cleared any more: that can wait for the
//! next plan, which is made from what is then in force.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::abi::{
    BackendId, BackendRow, Protocol, ServiceId, ServiceKey, ServiceRow,
    word::{BackendState, Slot, SlotRange, Way},
};

use super::{
    Change, Tables,
    tables::{filter_places, service_address},
};

/// Which changes were left out so far.
#[derive(Debug, Default)]
pub struct Salvage {
    left_out: BTreeSet<Place>,
}

/// What a change writes, as far as others build on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Backend(BackendId),
    Slots(u32),
    Service(ServiceId),
    /// What nothing builds on, or what is looked up in the maps themselves.
    Other,
}

impl Salvage {
    /// Notes a change that failed or was left out. `tables` are the maps in force.
    pub fn leave_out(&mut self, change: &Change, tables: &Tables) {
        let service = |key| tables.keys.get(key).copied().and_then(ServiceId::new);
        let place = match change {
            Change::Backend { id, .. }
            | Change::BackendWay { id, .. }
            | Change::BackendState { id, .. }
            | Change::ClearBackendCounters(id) => Place::Backend(*id),
            Change::Slots { offset, .. } => Place::Slots(*offset),
            Change::Service { id, .. }
            | Change::ServiceSlots { id, .. }
            | Change::ClearServiceCounters(id) => Place::Service(*id),
            // While the key is there, packets find the service.
            Change::RemoveKey(key) => service(key).map_or(Place::Other, Place::Service),
            _ => Place::Other,
        };
        self.left_out.insert(place);
    }

    /// Whether a change leads from what is in force to something correct.
    #[must_use]
    pub fn may_follow(&self, change: &Change, tables: &Tables) -> bool {
        if self.left_out.is_empty() {
            return true;
        }
        match change {
            Change::Config(row) => row.interfaces >= tables.config.interfaces,
            Change::Interface { row, .. } => row.ifindex != 0,
            Change::Device { ifindex, .. } => ifindex.is_some(),
            Change::ClearBackendCounters(_)
            | Change::ClearServiceCounters(_)
            | Change::RemoveKey(_) => true,
            Change::Backend {
                id, address, way, ..
            } => {
                !self.lacks(Place::Backend(*id))
                    && has_interface(tables, *way)
                    && passes(tables, *address, &[Protocol::Tcp, Protocol::Udp])
            }
            Change::BackendWay { way, .. } => has_interface(tables, *way),
            Change::BackendState { id, state } => {
                let before = tables.backends.get(id).map(BackendRow::state);
                stops(before.unwrap_or_default(), *state)
                    || state.flags & BackendState::IN_USE != 0 && !self.lacks(Place::Backend(*id))
            }
            Change::Filter { index, bits } => {
                let before = tables.filter.get(*index as usize).copied().unwrap_or(0);
                before & !bits == 0
            }
            Change::Slots { slots, .. } => slots.iter().all(|slot| has_tenant(tables, *slot)),
            Change::Service { id, row } => {
                row.in_use != 0
                    && !self.lacks(Place::Service(*id))
                    && self.has_slots(row.range())
                    && service_has_its_filter(tables, row)
            }
            Change::ServiceSlots { id, range } => {
                !self.lacks(Place::Service(*id)) && self.has_slots(*range)
            }
            Change::Key { key, value } => {
                *value == ServiceKey::VIP_MARKER
                    || ServiceId::new(*value).is_some_and(|id| {
                        let row = tables.services.get(&id).filter(|row| row.in_use != 0);
                        let named = row.and_then(service_address);
                        !self.lacks(Place::Service(id))
                            && named.is_some_and(|name| name.key() == *key)
                    })
            }
        }
    }

    fn lacks(&self, place: Place) -> bool {
        self.left_out.contains(&place)
    }

    fn has_slots(&self, range: SlotRange) -> bool {
        range.length == 0 || !self.lacks(Place::Slots(range.offset))
    }
}

/// Whether a backend's row only loses permissions.
fn stops(before: BackendState, after: BackendState) -> bool {
    let same = BackendState {
        flags: before.flags,
        ..after
    };
    let keeps_tenant = after.flags & BackendState::IN_USE != 0;
    same == before && after.flags & !before.flags == 0 && keeps_tenant
}

/// Whether a way leads nowhere, or out of an interface that has its row.
fn has_interface(tables: &Tables, way: Way) -> bool {
    let mut slots = tables.interfaces.keys();
    way == Way::default()
        || u32::from(way.interface) <= tables.config.interfaces
            && slots.any(|slot| slot.get() == way.interface)
}

fn has_tenant(tables: &Tables, slot: Slot) -> bool {
    let row = BackendId::new(slot.backend).and_then(|id| tables.backends.get(&id));
    row.is_some_and(|row| {
        let state = row.state();
        state.flags & BackendState::IN_USE != 0 && state.generation == slot.generation
    })
}

fn service_has_its_filter(tables: &Tables, row: &ServiceRow) -> bool {
    service_address(row).is_some_and(|service| passes(tables, service.address, &[service.protocol]))
}

/// Whether the filter has all the bits of an endpoint.
fn passes(tables: &Tables, endpoint: SocketAddr, protocols: &[Protocol]) -> bool {
    endpoint.is_ipv4()
        && filter_places(endpoint, protocols)
            .all(|(index, bit)| tables.filter.get(index as usize).copied().unwrap_or(0) & bit != 0)
}
