//! The contents of the control maps, as values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use lb_common::{
    abi::{
        BackendId, BackendRow, ConfigRow, FILTER_WORDS, InterfaceRow, InterfaceSlot, MAX_SLOTS,
        Protocol, ServiceId, ServiceKey, ServiceRow, address_bytes, address_from_bytes,
        word::{BackendState, Slot, SlotRange},
    },
    filter,
};

use super::{Change, ServiceAddress};

/// What the control maps hold. A row that is not in its table is all zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What may change while the program runs.
    pub config: ConfigRow,
    /// `FILTER`.
    pub filter: Vec<u64>,
    /// `SERVICE_KEYS`.
    pub keys: BTreeMap<ServiceKey, u32>,
    /// `SERVICES`.
    pub services: BTreeMap<ServiceId, ServiceRow>,
    /// `SLOTS`, at least those ranges that a service names.
    pub slots: Slots,
    /// `BACKENDS`.
    pub backends: BTreeMap<BackendId, BackendRow>,
    /// `INTERFACES`.
    pub interfaces: BTreeMap<InterfaceSlot, InterfaceRow>,
    /// `DEVICES`.
    pub devices: BTreeMap<InterfaceSlot, u32>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            config: ConfigRow::default(),
            filter: vec![0; FILTER_WORDS as usize],
            keys: BTreeMap::new(),
            services: BTreeMap::new(),
            slots: Slots::default(),
            backends: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            devices: BTreeMap::new(),
        }
    }
}

/// The arena of slots, as far as it was ever written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots(Vec<u64>);

impl Slots {
    /// Writes words from `offset` on.
    pub fn fill(&mut self, offset: u32, words: impl IntoIterator<Item = u64>) {
        for (place, word) in (offset as usize..).zip(words) {
            if self.0.len() <= place {
                self.0.resize(place + 1, 0);
            }
            self.0[place] = word;
        }
    }

    /// The words of a range, as far as it lies in the arena; what was never written reads as 0.
    pub fn words(&self, range: SlotRange) -> impl Iterator<Item = u64> {
        let end = range.offset.saturating_add(range.length).min(MAX_SLOTS);
        (range.offset..end).map(|place| self.0.get(place as usize).copied().unwrap_or(0))
    }
}

impl Tables {
    /// Does to the values what the change does to the maps.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::Config(row) => self.config = row,
            Change::Interface { slot, row } => put(&mut self.interfaces, slot, row),
            Change::Device {
                slot,
                ifindex: Some(ifindex),
            } => {
                self.devices.insert(slot, ifindex);
            }
            Change::Device {
                slot,
                ifindex: None,
            } => {
                self.devices.remove(&slot);
            }
            Change::ClearBackendCounters(_) | Change::ClearServiceCounters(_) => {}
            Change::Backend {
                id,
                address,
                way,
                state,
            } => put(&mut self.backends, id, BackendRow::new(address, way, state)),
            Change::BackendWay { id, way } => {
                let row = self.backends.get(&id).copied().unwrap_or_default();
                put(
                    &mut self.backends,
                    id,
                    BackendRow {
                        way: way.pack(),
                        ..row
                    },
                );
            }
            Change::BackendState { id, state } => {
                let row = self.backends.get(&id).copied().unwrap_or_default();
                put(
                    &mut self.backends,
                    id,
                    BackendRow {
                        state: state.pack(),
                        ..row
                    },
                );
            }
            Change::Filter { index, bits } => {
                if let Some(word) = self.filter.get_mut(index as usize) {
                    *word = bits;
                }
            }
            Change::Slots { offset, ref slots } => self
                .slots
                .fill(offset, slots.iter().map(|slot| slot.pack())),
            Change::Service { id, row } => put(&mut self.services, id, row),
            Change::ServiceSlots { id, range } => {
                let row = self.services.get(&id).copied().unwrap_or_default();
                put(
                    &mut self.services,
                    id,
                    ServiceRow {
                        slots: range.pack(),
                        ..row
                    },
                );
            }
            Change::Key { key, value } => {
                self.keys.insert(key, value);
            }
            Change::RemoveKey(key) => {
                self.keys.remove(&key);
            }
        }
    }

    /// Backends that have a row: in the configuration, or removed and not yet free again.
    pub fn tenants(&self) -> impl Iterator<Item = (BackendId, SocketAddr, BackendState)> {
        self.backends.iter().filter_map(|(id, row)| {
            let state = row.state();
            (state.flags & BackendState::IN_USE != 0).then(|| (*id, backend_address(row), state))
        })
    }

    /// Services that have a row; `None` for one whose row makes no sense.
    pub fn owners(&self) -> impl Iterator<Item = (ServiceId, Option<ServiceAddress>, &ServiceRow)> {
        self.services
            .iter()
            .filter(|(_, row)| row.in_use != 0)
            .map(|(id, row)| (*id, service_address(row), row))
    }

    /// The service that a key leads packets to.
    #[must_use]
    pub fn service_in_force(&self, service: ServiceAddress) -> Option<(ServiceId, &ServiceRow)> {
        let id = ServiceId::new(*self.keys.get(&service.key())?)?;
        Some((id, self.services.get(&id)?))
    }

    /// The backends that new flows of a service are sent to.
    #[must_use]
    pub fn rotation(&self, row: &ServiceRow) -> Vec<SocketAddr> {
        self.slots
            .words(row.range())
            .filter_map(|word| {
                let slot = Slot::unpack(word);
                let backend = self.backends.get(&BackendId::new(slot.backend)?)?;
                let state = backend.state();
                let takes =
                    state.generation == slot.generation && state.flags & BackendState::ACCEPTS != 0;
                takes.then(|| backend_address(backend))
            })
            .collect()
    }

    /// The words by which services name ranges of slots, empty ones left out.
    #[must_use]
    pub fn ranges(&self) -> BTreeSet<u64> {
        let used = self.services.values().filter(|row| row.in_use != 0);
        used.filter(|row| row.range().length != 0)
            .map(|row| row.slots)
            .collect()
    }
}

/// Rows of zeroes are not kept, so that equal maps are equal values.
fn put<K: Ord, V: Default + PartialEq>(table: &mut BTreeMap<K, V>, id: K, row: V) {
    if row == V::default() {
        table.remove(&id);
    } else {
        table.insert(id, row);
    }
}

/// The tenant of a row of `BACKENDS`.
#[must_use]
pub(crate) fn backend_address(row: &BackendRow) -> SocketAddr {
    SocketAddr::new(
        address_from_bytes(row.address),
        u16::from_be_bytes(row.port_be),
    )
}

/// The owner of a row of `SERVICES`; `None` where the protocol is none.
#[must_use]
pub(super) fn service_address(row: &ServiceRow) -> Option<ServiceAddress> {
    let protocol = match row.protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let address = SocketAddr::new(address_from_bytes(row.vip), u16::from_be_bytes(row.port_be));
    Some(ServiceAddress { address, protocol })
}

impl ServiceAddress {
    /// The key that leads packets to the service.
    #[must_use]
    pub fn key(self) -> ServiceKey {
        let port_be = self.address.port().to_be_bytes();
        ServiceKey::new(
            address_bytes(self.address.ip()),
            port_be,
            self.protocol as u8,
        )
    }

    /// The keys that mark its address as a VIP.
    #[must_use]
    pub fn markers(self) -> [ServiceKey; 2] {
        /// IP protocol number of ICMP.
        const ICMP: u8 = 1;
        let vip = address_bytes(self.address.ip());
        [
            ServiceKey::new(vip, ServiceKey::NO_PORT, ICMP),
            ServiceKey::new(vip, ServiceKey::NO_PORT, self.protocol as u8),
        ]
    }
}

/// Places in the filter; none for IPv6, which it does not hold. See [`filter::places`].
pub(super) fn filter_places(
    endpoint: SocketAddr,
    protocols: &[Protocol],
) -> impl Iterator<Item = (u32, u64)> {
    let endpoint = match endpoint {
        SocketAddr::V4(endpoint) => Some(endpoint),
        SocketAddr::V6(_) => None,
    };
    endpoint
        .into_iter()
        .flat_map(|endpoint| filter::places(endpoint, protocols))
}
