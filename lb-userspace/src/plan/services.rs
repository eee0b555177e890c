//! Rows of `SERVICES`, ranges of `SLOTS` and entries of `SERVICE_KEYS`.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    MAX_SERVICES, Scheduler, ServiceId, ServiceKey, ServiceRow, address_bytes,
    word::{Slot, SlotRange},
};

use super::{
    Change, Desired, Refusal, Service, ServiceAddress,
    arena::Arena,
    order::{BackendIds, Planner},
};

/// Rows of the services that are wanted, new ones among them.
pub(super) type ServiceIds = BTreeMap<ServiceAddress, ServiceId>;

/// Services that share a range of slots.
type Group<'a> = (&'a str, Scheduler);

impl<'a> Planner<'a> {
    /// Finds the row of every wanted service: the one its key names, or one it has left and not yet lost, or a free one.
    pub(super) fn service_ids(&mut self) -> ServiceIds {
        let mut ids = ServiceIds::new();
        let mut taken = BTreeSet::new();
        for (id, service, _) in self.tables.owners() {
            taken.insert(id);
            let Some(service) =
                service.filter(|service| self.desired.services.contains_key(service))
            else {
                continue;
            };
            let named = self.tables.keys.get(&service.key()) == Some(&id.get());
            let place = ids.entry(service).or_insert(id);
            if named {
                *place = id;
            }
        }
        let mut free = (1..MAX_SERVICES)
            .filter_map(ServiceId::new)
            .filter(|id| !taken.contains(id));
        for service in self.desired.services.keys() {
            if ids.contains_key(service) {
                continue;
            }
            match free.next() {
                Some(id) => {
                    ids.insert(*service, id);
                }
                None => self.refused.push(Refusal::NoServiceId(*service)),
            }
        }
        ids
    }

    /// Fills new ranges, then moves services to them and new services in.
    pub(super) fn raise_services(&mut self, services: &ServiceIds, backends: &BackendIds) {
        let desired: &'a Desired = self.desired;
        let ranges = self.raise_slots(services, backends);
        for (address, id) in services {
            let Some(service) = desired.services.get(address) else {
                continue;
            };
            let before = self.tables.services.get(id).copied().unwrap_or_default();
            let is_new = before.in_use == 0;
            let range = ranges.get(&group(service)).copied().flatten();
            let range = range.unwrap_or(if is_new {
                SlotRange::default()
            } else {
                before.range()
            });
            let row = ServiceRow {
                slots: range.pack(),
                vip: address_bytes(address.address.ip()),
                port_be: address.address.port().to_be_bytes(),
                protocol: address.protocol as u8,
                mode: service.mode as u8,
                scheduler: service.scheduler as u8,
                in_use: 1,
                generation: before.generation.wrapping_add(u16::from(is_new)),
                reserved: [0; 4],
            };
            if is_new && before.generation != 0 {
                self.emit(Change::ClearServiceCounters(*id));
            }
            if row == before {
                continue;
            }
            if row
                == (ServiceRow {
                    slots: row.slots,
                    ..before
                })
            {
                self.emit(Change::ServiceSlots { id: *id, range });
            } else {
                self.emit(Change::Service { id: *id, row });
            }
        }
    }

    /// Gives each group of services a range with its slots: one that a member names and that holds them, or a new one.
    /// `None` for a group for which there is no room.
    fn raise_slots(
        &mut self,
        services: &ServiceIds,
        backends: &BackendIds,
    ) -> BTreeMap<Group<'a>, Option<SlotRange>> {
        let desired: &'a Desired = self.desired;
        let mut slots: BTreeMap<Group<'a>, Vec<Slot>> = BTreeMap::new();
        let mut ranges: BTreeMap<Group<'a>, Option<SlotRange>> = BTreeMap::new();
        for (address, id) in services {
            let Some(service) = desired.services.get(address) else {
                continue;
            };
            let wanted = slots
                .entry(group(service))
                .or_insert_with(|| self.slots_of(service, backends));
            let range = self
                .tables
                .services
                .get(id)
                .map(ServiceRow::range)
                .unwrap_or_default();
            let place = ranges.entry(group(service)).or_insert(None);
            let named = wanted.len() == range.length as usize;
            if place.is_none()
                && named
                && self
                    .tables
                    .slots
                    .words(range)
                    .eq(wanted.iter().map(|slot| slot.pack()))
            {
                *place = Some(range);
            }
        }
        let resting = self
            .book
            .resting_ranges(self.now)
            .chain(self.tables.ranges());
        let mut arena = Arena::new(resting.map(SlotRange::unpack));
        for (group, slots) in slots {
            if ranges.get(&group).is_some_and(Option::is_some) {
                continue;
            }
            let length = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            let range = match arena.take(length) {
                _ if length == 0 => SlotRange::default(),
                Ok(range) => range,
                Err(room) => {
                    let first = desired
                        .services
                        .iter()
                        .find(|(_, service)| self::group(service) == group);
                    self.refused
                        .extend(first.map(|(service, _)| Refusal::ArenaFull {
                            service: *service,
                            wanted: length,
                            free: room.free,
                            longest: room.longest,
                        }));
                    continue;
                }
            };
            if length != 0 {
                self.emit(Change::Slots {
                    offset: range.offset,
                    slots,
                });
            }
            ranges.insert(group, Some(range));
        }
        ranges
    }

    /// The slots that a service should have; backends without a row are left out.
    fn slots_of(&self, service: &Service, backends: &BackendIds) -> Vec<Slot> {
        let rotation = self.desired.rotation(service).iter();
        rotation
            .filter_map(|address| {
                let id = backends.get(address)?;
                let state = self.tables.backends.get(id)?.state();
                Some(Slot {
                    backend: id.get(),
                    generation: state.generation,
                })
            })
            .collect()
    }

    /// Leads packets to the services, then marks their addresses as VIPs.
    pub(super) fn raise_keys(&mut self, services: &ServiceIds) {
        for (key, value) in services
            .iter()
            .map(|(service, id)| (service.key(), id.get()))
            .chain(markers(services))
        {
            if self.tables.keys.get(&key) != Some(&value) {
                self.emit(Change::Key { key, value });
            }
        }
    }

    /// Takes back what leads to no service: markers, then keys.
    pub(super) fn lower_keys(&mut self, services: &ServiceIds) {
        let mut wanted: BTreeSet<_> = services.keys().map(|service| service.key()).collect();
        wanted.extend(markers(services).map(|(key, _)| key));
        let (markers, keys): (Vec<_>, Vec<_>) = self
            .tables
            .keys
            .keys()
            .filter(|key| !wanted.contains(key))
            .copied()
            .partition(|key| key.port_be == ServiceKey::NO_PORT);
        for key in markers.into_iter().chain(keys) {
            self.emit(Change::RemoveKey(key));
        }
    }

    /// Takes the slots of removed services away and clears the rows that have rested; their generations stay.
    pub(super) fn lower_services(&mut self, services: &ServiceIds) {
        let living: BTreeSet<_> = services.values().copied().collect();
        let retired: BTreeSet<_> = self
            .tables
            .owners()
            .map(|(id, ..)| id)
            .filter(|id| !living.contains(id))
            .collect();
        for id in &retired {
            if self
                .tables
                .services
                .get(id)
                .is_some_and(|row| row.slots != 0)
            {
                self.emit(Change::ServiceSlots {
                    id: *id,
                    range: SlotRange::default(),
                });
            }
        }
        self.book
            .rest_ranges(&self.before.ranges(), &self.tables.ranges(), self.now);
        for id in self.book.rest_services(&retired, self.now) {
            let generation = self
                .tables
                .services
                .get(&id)
                .map_or(0, |row| row.generation);
            self.emit(Change::Service {
                id,
                row: ServiceRow {
                    generation,
                    ..ServiceRow::default()
                },
            });
        }
    }
}

fn group(service: &Service) -> Group<'_> {
    (&service.pool, service.scheduler)
}

fn markers(services: &ServiceIds) -> impl Iterator<Item = (ServiceKey, u32)> {
    services
        .keys()
        .flat_map(|service| service.markers())
        .map(|key| (key, ServiceKey::VIP_MARKER))
}
