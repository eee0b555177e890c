//! What must hold at every moment, and at the end of every reconcile.

use super::*;

impl World {
    /// What holds for a packet that comes at any moment.
    pub(super) fn check_in_between(&self, before: &Tables, tables: &Tables, after: &Tables) {
        for (key, value) in &tables.keys {
            if *value == ServiceKey::VIP_MARKER {
                continue;
            }
            let row = ServiceId::new(*value)
                .and_then(|id| tables.services.get(&id))
                .expect("a key names a filled row");
            assert_eq!(
                service_address(row).map(ServiceAddress::key),
                Some(*key),
                "a key names its own service"
            );
            assert!(row.in_use == 1 && row.mode == 1 && row.scheduler == 1);
            let words: Vec<_> = tables.slots.words(row.range()).collect();
            for slot in words.iter().copied().map(Slot::unpack) {
                check_slot(tables, slot);
            }
            let service = service_address(row).unwrap();
            let of = |tables: &Tables| {
                let (_, row) = tables.service_in_force(service)?;
                Some(tables.slots.words(row.range()).collect::<Vec<_>>())
            };
            assert!(
                of(before).is_some_and(|old| old == words)
                    || of(after).is_some_and(|new| new == words),
                "a service has its old slots or its new ones"
            );
        }
        for (range, _, words) in &self.recent {
            assert!(
                tables.slots.words(*range).eq(words.iter().copied()),
                "slots stay while packets may read them"
            );
            for slot in words.iter().copied().map(Slot::unpack) {
                check_slot(tables, slot);
            }
        }
        for (id, address, state) in tables.tenants() {
            let way = tables.backends[&id].way();
            assert!(
                way == Way::default() || way.flags == Way::RESOLVED,
                "a way is resolved or none"
            );
            let of = |tables: &Tables| {
                let row = tables.backends.get(&id)?;
                let same = row.state().generation == state.generation;
                (same && backend_address(row) == address).then(|| row.way())
            };
            assert!(
                of(before) == Some(way) || of(after) == Some(way),
                "a backend has its old way or its new one, and never that of another tenant"
            );
            let accepts = |tables: &Tables| {
                let row = tables.backends.get(&id);
                row.is_some_and(|row| row.state().flags & BackendState::ACCEPTS != 0)
            };
            assert!(
                accepts(before) || !accepts(tables) || of(after) == Some(way),
                "a backend has its new way before it takes flows"
            );
            for (index, bit) in filter_places(address, &[Protocol::Tcp, Protocol::Udp]) {
                assert!(
                    tables.filter[index as usize] & bit != 0,
                    "the filter lets a backend's packets in"
                );
            }
        }
        for service in tables.owners().filter_map(|(_, service, _)| service) {
            for (index, bit) in filter_places(service.address, &[service.protocol]) {
                assert!(
                    tables.filter[index as usize] & bit != 0,
                    "the filter lets a service's packets in"
                );
            }
        }
        let highest = tables
            .interfaces
            .keys()
            .next_back()
            .map_or(0, |slot| slot.get().into());
        let rising = tables.config == before.config;
        assert!(rising || tables.config.interfaces >= highest);
    }

    /// No way leads through an interface that was removed: its row may be given to another at any later moment.
    pub(super) fn check_ways(&self) {
        let Actual { tables, book } = &self.actual;
        let configured = self.desired.interfaces.keys();
        let rows: BTreeSet<_> = configured
            .filter_map(|name| book.interfaces.get(name).copied())
            .collect();
        for (id, address, _) in tables.tenants() {
            let row = InterfaceSlot::new(tables.backends[&id].way().interface);
            assert!(
                row.is_none_or(|row| rows.contains(&row)),
                "the way to {address} names a row that is nobody's"
            );
        }
    }

    /// Law 6: what a flow refers to is still what it was.
    pub(super) fn check_flows(&self) {
        let tables = &self.actual.tables;
        for flow in &self.flows {
            let backend = &tables.backends[&flow.backend];
            assert_eq!(backend_address(backend), flow.address);
            assert_eq!(backend.state().generation, flow.generation);
            assert!(backend.state().flags & BackendState::IN_USE != 0);
            assert_eq!(
                service_address(&tables.services[&flow.service]),
                Some(flow.service_address)
            );
            if let Some((slot, name)) = &flow.slot
                && let Some(owner) = self.interface_at(*slot)
            {
                assert_eq!(
                    owner, *name,
                    "a row of an interface is not another's while flows refer to it"
                );
            }
        }
    }
}

fn check_slot(tables: &Tables, slot: Slot) {
    let id = BackendId::new(slot.backend).expect("a slot in force was filled");
    let state = tables
        .backends
        .get(&id)
        .expect("a slot names a row")
        .state();
    assert_eq!(
        state.generation, slot.generation,
        "a slot names its own tenant"
    );
    assert!(
        state.flags & BackendState::IN_USE != 0,
        "a slot names a row with a tenant"
    );
}

/// The maps hold exactly what is desired.
pub(super) fn check_result(desired: &Desired, tables: &Tables) {
    let mut keys = BTreeSet::new();
    for (address, service) in &desired.services {
        keys.insert(address.key());
        keys.extend(address.markers());
        let (_, row) = tables
            .service_in_force(*address)
            .expect("a wanted service is in force");
        let rotation: Vec<_> = desired.rotation(service).to_vec();
        assert_eq!(tables.rotation(row), rotation);
        assert_eq!(row.range().length as usize, rotation.len());
    }
    assert_eq!(tables.keys.keys().copied().collect::<BTreeSet<_>>(), keys);
    let accepting: BTreeSet<_> = desired
        .services
        .values()
        .flat_map(|service| desired.rotation(service))
        .copied()
        .collect();
    for (id, address, state) in tables.tenants() {
        let way = tables.backends[&id].way();
        assert_eq!(
            state.flags & BackendState::ACCEPTS != 0,
            accepting.contains(&address)
        );
        match desired.hops.get(&address.ip()) {
            Some(Hop::Known { key, mac }) if desired.interfaces.contains_key(&key.interface) => {
                assert_eq!(way.mac, *mac);
                let slot = InterfaceSlot::new(way.interface).unwrap();
                let ifindex = tables.interfaces.get(&slot).map_or(0, |row| row.ifindex);
                assert_eq!(ifindex, desired.interfaces[&key.interface].ifindex);
            }
            Some(Hop::Unreachable) => assert_eq!(way, Way::default()),
            _ => {}
        }
    }
    let tenants: BTreeSet<_> = tables.tenants().map(|(_, address, _)| address).collect();
    assert!(desired.backends.is_subset(&tenants));
    for interface in desired
        .interfaces
        .values()
        .filter(|interface| interface.ifindex != 0)
    {
        assert!(
            tables
                .devices
                .values()
                .any(|device| *device == interface.ifindex)
        );
    }
}

/// A backend or service that lives on keeps its id and generation.
pub(super) fn check_identities(desired: &Desired, before: &Tables, after: &Tables) {
    let ids = |tables: &Tables| -> BTreeMap<_, _> {
        tables
            .tenants()
            .map(|(id, address, state)| (address, (id, state.generation)))
            .collect()
    };
    let (old, new) = (ids(before), ids(after));
    for address in &desired.backends {
        if let Some(identity) = old.get(address) {
            assert_eq!(new.get(address), Some(identity), "{address} keeps its id");
        }
    }
    for address in desired.services.keys() {
        if let Some((id, _)) = before.service_in_force(*address) {
            assert_eq!(after.service_in_force(*address).map(|(id, _)| id), Some(id));
        }
    }
}
