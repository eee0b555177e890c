//! The control maps: read as values, written word by word.

use std::{collections::BTreeMap, io, os::fd::AsFd};

use aya::maps::{HashMap, Map, MapData, xdp::DevMap};
use lb_common::abi::{
    BackendId, BackendRow, InterfaceSlot, ServiceId, ServiceKey,
    word::{BackendState, SlotRange, Way},
};

use super::{
    TableError,
    control::{CONTROL, ControlTables},
    counters::{COUNTERS, CounterRows},
    io_error,
    pins::Pins,
    rows::{backend_row, backend_words, interface_row, service_row, service_words},
    shared::SharedArray,
    syscall,
};
use crate::plan::{Change, Tables};

/// Bytes of a key of `SERVICE_KEYS`.
type KeyBytes = [u8; size_of::<ServiceKey>()];

/// The maps that the agent writes.
pub(super) struct Maps {
    control: ControlTables,
    keys: HashMap<MapData, KeyBytes, u32>,
    slots: SharedArray,
    devices: DevMap<MapData>,
    devices_fd: MapData,
    counters: CounterRows,
}

impl Maps {
    /// Opens the pinned maps; the error names the map.
    pub(super) fn open(pins: &Pins) -> Result<Self, (&'static str, io::Error)> {
        let shared = |name| SharedArray::pinned(&pins.map(name)).map_err(|cause| (name, cause));
        Ok(Self {
            control: shared(CONTROL)
                .and_then(|map| ControlTables::of(&map).map_err(|cause| (CONTROL, cause)))?,
            keys: typed(pins, "SERVICE_KEYS")?,
            slots: shared("SLOTS")?,
            devices: typed(pins, "DEVICES")?,
            devices_fd: MapData::from_pin(pins.map("DEVICES"))
                .map_err(|error| ("DEVICES", io_error(&error)))?,
            counters: CounterRows::pinned(&pins.map(COUNTERS))
                .map_err(|cause| (COUNTERS, cause))?,
        })
    }

    pub(super) fn tables(&self) -> Result<Tables, TableError> {
        let filter = &self.control.filter;
        let mut tables = Tables {
            config: self.control.config(),
            filter: (0..filter.rows()).map(|row| filter.load(row, 0)).collect(),
            ..Tables::default()
        };
        for entry in &self.keys {
            let (key, value) = entry.map_err(|error| failed("SERVICE_KEYS", "read", &error))?;
            tables.keys.insert(key_of(key), value);
        }
        tables.services = rows(&self.control.services, ServiceId::new, service_row);
        tables.backends = rows(
            &self.control.backends,
            |row| BackendId::new(u16::try_from(row).ok()?),
            backend_row,
        );
        tables.interfaces = rows(
            &self.control.interfaces,
            |row| InterfaceSlot::new(u8::try_from(row).ok()?),
            interface_row,
        );
        for slot in
            (1..self.devices.len()).filter_map(|row| InterfaceSlot::new(u8::try_from(row).ok()?))
        {
            match self.devices.get(u32::from(slot.get()), 0) {
                Ok(device) => {
                    tables.devices.insert(slot, device.if_index);
                }
                Err(aya::maps::MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("DEVICES", "read", &error)),
            }
        }
        for range in tables.ranges().into_iter().map(SlotRange::unpack) {
            let end = range
                .offset
                .saturating_add(range.length)
                .min(self.slots.rows());
            tables.slots.fill(
                range.offset,
                (range.offset..end).map(|slot| self.slots.load(slot, 0)),
            );
        }
        Ok(tables)
    }

    /// The last rows of `SERVICES` and of `BACKENDS` that have a tenant.
    pub(super) fn last_rows(&self) -> (u32, u32) {
        let ControlTables {
            services, backends, ..
        } = &self.control;
        let service = |row: &u32| service_row(services.row(*row)).in_use != 0;
        let backend =
            |row: &u32| backend_row(backends.row(*row)).state().flags & BackendState::IN_USE != 0;
        let last_service = (1..services.rows()).rev().find(service);
        let last_backend = (1..backends.rows()).rev().find(backend);
        (last_service.unwrap_or(0), last_backend.unwrap_or(0))
    }

    pub(super) fn apply(&mut self, change: &Change) -> Result<(), TableError> {
        let store = |map, result: io::Result<()>| {
            result.map_err(|cause| TableError {
                map,
                action: "write",
                cause,
            })
        };
        match *change {
            Change::Config(ref row) => store(CONTROL, self.control.set_config(row)),
            Change::Interface { slot, ref row } => {
                store(CONTROL, self.control.set_interface(slot, row))
            }
            Change::Device {
                slot,
                ifindex: Some(ifindex),
            } => self
                .devices
                .set(u32::from(slot.get()), ifindex, None, 0)
                .map_err(|error| failed("DEVICES", "write", &error)),
            Change::Device {
                slot,
                ifindex: None,
            } => store(
                "DEVICES",
                syscall::delete(self.devices_fd.fd().as_fd(), u32::from(slot.get())),
            ),
            Change::ClearBackendCounters(id) => {
                store(COUNTERS, self.counters.clear_backend(id.get().into()))
            }
            Change::Backend {
                id,
                address,
                way,
                state,
            } => {
                let words = backend_words(&BackendRow::new(address, way, state));
                let row = u32::from(id.get());
                store(CONTROL, self.control.backends.store_row(row, words))
            }
            Change::BackendWay { id, way } => store(CONTROL, self.store_way(id, way)),
            Change::BackendState { id, state } => store(CONTROL, self.store_state(id, state)),
            Change::Filter { index, bits } => {
                store(CONTROL, self.control.filter.store(index, 0, bits))
            }
            Change::Slots { offset, ref slots } => {
                let mut places = (offset..).zip(slots);
                store(
                    "SLOTS",
                    places.try_for_each(|(place, slot)| self.slots.store(place, 0, slot.pack())),
                )
            }
            Change::ClearServiceCounters(id) => {
                store(COUNTERS, self.counters.clear_service(id.get()))
            }
            Change::Service { id, ref row } => store(
                CONTROL,
                self.control
                    .services
                    .store_row(id.get(), service_words(row)),
            ),
            Change::ServiceSlots { id, range } => {
                let services = &self.control.services;
                store(CONTROL, services.store(id.get(), 0, range.pack()))
            }
            Change::Key { key, value } => {
                let inserted = self.keys.insert(key_bytes(&key), value, 0);
                inserted.map_err(|error| failed("SERVICE_KEYS", "write", &error))?;
                store(CONTROL, self.control.note_key_change())
            }
            Change::RemoveKey(ref key) => match self.keys.remove(&key_bytes(key)) {
                Err(error) if io_error(&error).kind() != io::ErrorKind::NotFound => {
                    Err(failed("SERVICE_KEYS", "write", &error))
                }
                _ => store(CONTROL, self.control.note_key_change()),
            },
        }
    }

    /// Has no CPU go by a service that it found before.
    ///
    /// # Errors
    /// The mapping is for reading alone.
    pub(super) fn note_key_change(&self) -> io::Result<()> {
        self.control.note_key_change()
    }

    fn store_way(&self, id: BackendId, way: Way) -> io::Result<()> {
        let row = u32::from(id.get());
        self.control.backends.store(row, 1, way.pack())
    }

    /// The port stands in the same word and stays.
    fn store_state(&self, id: BackendId, state: BackendState) -> io::Result<()> {
        let id = u32::from(id.get());
        let backends = &self.control.backends;
        let row = BackendRow {
            state: state.pack(),
            ..backend_row(backends.row(id))
        };
        let [word, ..] = backend_words(&row);
        backends.store(id, 0, word)
    }
}

/// Opens a pinned map.
pub(super) fn open_map(pins: &Pins, name: &str) -> io::Result<Map> {
    let map = MapData::from_pin(pins.map(name)).map_err(|error| io_error(&error))?;
    Map::from_map_data(map).map_err(|error| io_error(&error))
}

fn typed<T>(pins: &Pins, name: &'static str) -> Result<T, (&'static str, io::Error)>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = open_map(pins, name).map_err(|cause| (name, cause))?;
    T::try_from(map).map_err(|error| (name, io_error(&error)))
}

/// Rows that are not all zeroes.
fn rows<Id: Ord, Row, const WORDS: usize>(
    array: &SharedArray,
    id: impl Fn(u32) -> Option<Id>,
    row: impl Fn([u64; WORDS]) -> Row,
) -> BTreeMap<Id, Row> {
    let filled = |number| {
        let words = array.row::<WORDS>(number);
        (words != [0; WORDS]).then_some(words)
    };
    (1..array.rows())
        .filter_map(|number| Some((id(number)?, row(filled(number)?))))
        .collect()
}

fn key_bytes(key: &ServiceKey) -> KeyBytes {
    let mut bytes = KeyBytes::default();
    bytes[..16].copy_from_slice(&key.vip);
    bytes[16..18].copy_from_slice(&key.port_be);
    bytes[18] = key.protocol;
    bytes[19] = key.padding;
    bytes
}

fn key_of(bytes: KeyBytes) -> ServiceKey {
    let [vip @ .., port_head, port_tail, protocol, padding] = bytes;
    ServiceKey {
        vip,
        port_be: [port_head, port_tail],
        protocol,
        padding,
    }
}

fn failed(
    map: &'static str,
    action: &'static str,
    error: &(dyn std::error::Error + 'static),
) -> TableError {
    TableError {
        map,
        action,
        cause: io_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_bytes() {
        let key = ServiceKey::new(
            std::array::from_fn(|byte| u8::try_from(byte).unwrap()),
            [3, 4],
            6,
        );
        assert_eq!(key_of(key_bytes(&key)), key);
    }
}
