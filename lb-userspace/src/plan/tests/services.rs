//! Services, slots, and the whole.

use super::*;

#[test]
fn a_cold_start_builds_from_the_bottom_up() {
    let mut balancer = Balancer::new();
    let changes = balancer.reconcile(&desired(2));
    let kinds: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Interface { .. } => "interface",
            Change::Device { .. } => "device",
            Change::Config(_) => "config",
            Change::Filter { .. } => "filter",
            Change::Backend { .. } => "backend",
            Change::Slots { .. } => "slots",
            Change::Service { .. } => "service",
            Change::Key { .. } => "key",
            _ => "other",
        })
        .collect();
    let mut order = kinds.clone();
    order.dedup();
    let expected = [
        "interface",
        "device",
        "config",
        "filter",
        "backend",
        "slots",
        "service",
        "key",
    ];
    assert_eq!(order, expected);
    assert_eq!(balancer.rotation(), [backend(1), backend(2)]);
    assert_eq!(balancer.reconcile(&desired(2)), []);
}

#[test]
fn a_removed_service_loses_its_keys_at_once_and_its_row_after_its_flows() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(1));
    let (id, _) = balancer.actual.tables.service_in_force(www()).unwrap();
    let mut wanted = desired(1);
    wanted.services.clear();
    wanted.backends.clear();
    balancer.reconcile(&wanted);
    assert!(balancer.actual.tables.keys.is_empty());
    let row = balancer.actual.tables.services[&id];
    assert_eq!((row.in_use, row.slots), (1, 0));
    assert!(
        balancer.actual.tables.filter.iter().any(|word| *word != 0),
        "its flows still pass the filter"
    );
    balancer.settle(&wanted);
    let row = balancer.actual.tables.services[&id];
    assert_eq!((row.in_use, row.generation), (0, 1));
    assert!(balancer.actual.tables.filter.iter().all(|word| *word == 0));
}

#[test]
fn a_key_is_the_first_that_comes_and_the_last_that_goes() {
    let mut balancer = Balancer::new();
    let keys = |changes: &[Change]| -> Vec<bool> {
        let keys = changes.iter().filter_map(|change| match change {
            Change::Key { key, .. } | Change::RemoveKey(key) => Some(*key == www().key()),
            _ => None,
        });
        keys.collect()
    };
    // A VIP's markers, by which it answers pings, are there only while it has a service.
    assert_eq!(keys(&balancer.reconcile(&desired(1))), [true, false, false]);
    let mut wanted = desired(1);
    wanted.services.clear();
    assert_eq!(keys(&balancer.reconcile(&wanted)), [false, false, true]);
}

#[test]
fn of_two_rows_of_one_service_the_one_that_its_key_names_stays() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(1));
    let (id, row) = balancer.actual.tables.service_in_force(www()).unwrap();
    let (first, row) = (id, *row);
    let second = ServiceId::new(5).unwrap();
    let tables = &mut balancer.actual.tables;
    tables.services.insert(second, row);
    tables.keys.insert(www().key(), second.get());
    assert!(first < second);
    balancer.reconcile(&desired(1));
    assert_eq!(balancer.actual.tables.keys[&www().key()], second.get());
}

#[test]
fn slots_that_rest_are_free_when_the_first_of_them_has_rested() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(3));
    assert_eq!(balancer.actual.book.next_wake(), None);
    let first = balancer.now;
    for fewer in [2, 1] {
        let mut wanted = desired(3);
        let rotation = (1..=fewer).map(backend).collect();
        wanted.pools.insert("web".to_owned(), rotation);
        balancer.reconcile(&wanted);
        balancer.wait(GRACE / 2);
    }
    assert_eq!(balancer.actual.book.next_wake(), Some(first + GRACE));
}

#[test]
fn a_new_service_in_an_old_row_has_a_new_generation_and_counters_of_its_own() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(1));
    let (id, row) = balancer.actual.tables.service_in_force(www()).unwrap();
    let generation = row.generation;
    let mut wanted = desired(1);
    wanted.services.clear();
    balancer.reconcile(&wanted);
    balancer.settle(&wanted);
    let next = ServiceAddress {
        protocol: Protocol::Udp,
        ..www()
    };
    wanted.services.insert(next, service("web"));
    let changes = balancer.reconcile(&wanted);
    let (new_id, row) = balancer.actual.tables.service_in_force(next).unwrap();
    assert_eq!((new_id, row.generation), (id, generation + 1));
    let clear = changes
        .iter()
        .position(|change| *change == Change::ClearServiceCounters(id));
    let row = changes
        .iter()
        .position(|change| matches!(change, Change::Service { .. }));
    assert!(clear.is_some() && clear < row, "{changes:?}");
}

#[test]
fn a_service_that_moves_has_its_new_key_before_its_old_one_goes() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(1));
    let mut wanted = desired(1);
    let moved = ServiceAddress {
        address: SocketAddr::from(([192, 0, 2, 11], 80)),
        ..www()
    };
    wanted.services = [(moved, service("web"))].into();
    let changes = balancer.reconcile(&wanted);
    let came = changes
        .iter()
        .rposition(|change| matches!(change, Change::Key { .. }));
    let went = changes
        .iter()
        .position(|change| matches!(change, Change::RemoveKey(_)));
    assert!(came.is_some() && came < went, "{changes:?}");
}

#[test]
fn services_of_one_pool_share_their_slots() {
    let other = ServiceAddress {
        protocol: Protocol::Udp,
        ..www()
    };
    let mut wanted = desired(3);
    wanted.services.insert(other, service("web"));
    let mut balancer = Balancer::new();
    balancer.reconcile(&wanted);
    assert_eq!(balancer.actual.tables.ranges().len(), 1);
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(3));
    let changes = balancer.reconcile(&wanted);
    assert!(
        !changes
            .iter()
            .any(|change| matches!(change, Change::Slots { .. })),
        "a range that fits is shared"
    );
}

#[test]
fn drift_is_repaired() {
    let mut balancer = Balancer::new();
    let wanted = desired(3);
    balancer.reconcile(&wanted);
    let good = balancer.actual.tables.clone();
    let tables = &mut balancer.actual.tables;
    tables.keys.clear();
    tables.filter[5] = u64::MAX;
    tables.backends.values_mut().for_each(|row| row.way ^= 1);
    tables.interfaces.insert(
        InterfaceSlot::new(1).unwrap(),
        InterfaceRow {
            ifindex: 77,
            ..InterfaceRow::default()
        },
    );
    tables.slots.fill(0, [0, 0, 0]);
    tables.services.values_mut().for_each(|row| row.mode = 9);
    balancer.reconcile(&wanted);
    assert_eq!(balancer.rotation(), [backend(1), backend(2), backend(3)]);
    let tables = &mut balancer.actual.tables;
    assert_eq!(
        (&tables.keys, &tables.filter, &tables.backends),
        (&good.keys, &good.filter, &good.backends)
    );
    assert_eq!(
        (&tables.interfaces, &tables.devices),
        (&good.interfaces, &good.devices)
    );
    tables
        .services
        .values_mut()
        .for_each(|row| row.slots = u64::MAX);
    balancer.reconcile(&wanted);
    assert_eq!(balancer.rotation().len(), 3);
}

#[test]
fn a_full_arena_keeps_the_last_good_slots_and_says_why() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(3));
    let before = balancer.actual.tables.ranges();
    // Another service takes all that is left but two slots, and is removed.
    let hog = SlotRange {
        offset: 3,
        length: MAX_SLOTS - 5,
    };
    let row = ServiceRow {
        slots: hog.pack(),
        protocol: 17,
        in_use: 1,
        generation: 1,
        ..ServiceRow::default()
    };
    balancer
        .actual
        .tables
        .services
        .insert(ServiceId::new(9).unwrap(), row);
    let planned = plan(&desired(4), &balancer.actual, balancer.now);
    let full = Refusal::ArenaFull {
        service: www(),
        wanted: 4,
        free: 2,
        longest: 2,
    };
    assert_eq!(planned.refused, [full]);
    assert!(
        planned.refused[0]
            .to_string()
            .contains("old slots stay in force")
    );
    balancer.take(planned);
    assert_eq!(balancer.actual.tables.ranges(), before);
    assert_eq!(balancer.rotation().len(), 3);
    // Its slots rest, then there is room.
    assert_eq!(
        plan(&desired(4), &balancer.actual, balancer.now)
            .refused
            .len(),
        1
    );
    balancer.wait(GRACE);
    balancer.reconcile(&desired(4));
    assert_eq!(balancer.rotation().len(), 4);
}
