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
