//! Interfaces, neighbours and the ways through them.

use std::ops::RangeInclusive;

use super::*;

/// Ways to these backends through gateway 250, whose MAC address ends so.
fn behind(numbers: RangeInclusive<u16>, mac: u8) -> impl Iterator<Item = (IpAddr, Hop)> {
    numbers.map(move |number| (backend(number).ip(), through(250, mac)))
}

/// A balancer with two backends, the first one out of reach.
fn with_the_first_of_two_unreachable() -> Balancer {
    let mut balancer = Balancer::new();
    let mut lost = desired(2);
    lost.hops.insert(backend(1).ip(), Hop::Unreachable);
    lost.pools.insert("web".to_owned(), vec![backend(2)]);
    balancer.reconcile(&lost);
    balancer
}

#[test]
fn a_new_mac_is_a_word_for_each_backend_behind_it_and_a_new_gateway_one_for_its_backend() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(3);
    wanted.hops.extend(behind(1..=2, 1));
    balancer.reconcile(&wanted);

    wanted.hops.extend(behind(1..=2, 9));
    let changes = balancer.reconcile(&wanted);
    let way = Way {
        mac: [2, 0, 0, 0, 2, 9],
        interface: 1,
        flags: Way::RESOLVED,
    };
    let to = |number| Change::BackendWay {
        id: balancer.row(backend(number)).unwrap().0,
        way,
    };
    assert_eq!(changes, [to(1), to(2)]);

    wanted.hops.insert(backend(1).ip(), through(251, 5));
    let changes = balancer.reconcile(&wanted);
    assert!(matches!(changes[..], [Change::BackendWay { .. }]));
    assert_eq!(balancer.way(backend(1)).mac, [2, 0, 0, 0, 2, 5]);
    assert_eq!(balancer.way(backend(2)), way);
}

#[test]
fn a_backend_that_is_reachable_again_has_its_way_before_it_takes_flows() {
    let mut balancer = with_the_first_of_two_unreachable();
    assert_eq!(balancer.way(backend(1)), Way::default());
    let changes = balancer.reconcile(&desired(2));
    let id = balancer.row(backend(1)).unwrap().0;
    let place = |is: &dyn Fn(&Change) -> bool| changes.iter().position(is);
    let way =
        place(&|change| matches!(change, Change::BackendWay { id: other, .. } if *other == id));
    let state =
        place(&|change| matches!(change, Change::BackendState { id: other, .. } if *other == id));
    let slots = place(&|change| matches!(change, Change::ServiceSlots { .. }));
    assert!(way.is_some() && way < state && state < slots, "{changes:?}");
}

#[test]
fn a_backend_whose_way_can_not_be_written_takes_no_flows() {
    let mut balancer = with_the_first_of_two_unreachable();
    let planned = plan(&desired(2), &balancer.actual, balancer.now);
    let tables = &mut balancer.actual.tables;
    let mut salvage = Salvage::default();
    for change in &planned.changes {
        let fails = matches!(change, Change::BackendWay { .. });
        if !fails && salvage.may_follow(change, tables) {
            tables.apply(change);
        } else {
            salvage.leave_out(change, tables);
        }
    }
    assert_eq!(balancer.rotation(), [backend(2)]);
    balancer.reconcile(&desired(2));
    assert_eq!(balancer.rotation(), [backend(1), backend(2)]);
}

#[test]
fn a_new_tenant_of_a_row_comes_with_its_own_way() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let (id, _) = balancer.row(backend(2)).unwrap();
    balancer.reconcile(&desired(1));
    balancer.settle(&desired(1));
    let mut wanted = desired(1);
    wanted.backends.insert(backend(7));
    balancer.reconcile(&wanted);
    assert_eq!(balancer.row(backend(7)).unwrap().0, id);
    assert_eq!(
        balancer.way(backend(7)),
        Way::default(),
        "not that of the old tenant"
    );
}

#[test]
fn a_backend_that_comes_behind_a_silent_gateway_takes_its_last_known_way() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(2);
    wanted.hops.insert(backend(2).ip(), through(250, 1));
    balancer.reconcile(&wanted);
    let way = balancer.way(backend(2));
    let Hop::Known { key, .. } = through(250, 1) else {
        unreachable!()
    };
    for number in 1..=3 {
        let keep = Hop::Keep {
            key: Some(key.clone()),
        };
        wanted.hops.insert(backend(number).ip(), keep);
    }
    wanted.backends.insert(backend(3));
    balancer.reconcile(&wanted);
    for number in 1..=3 {
        assert_eq!(balancer.way(backend(number)), way);
    }
}

#[test]
fn a_neighbour_that_is_not_known_at_the_moment_keeps_its_way() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    let way = balancer.way(backend(1));
    wanted.hops.insert(backend(1).ip(), Hop::Keep { key: None });
    assert_eq!(balancer.reconcile(&wanted), []);
    balancer.actual.book = Book::default();
    assert_eq!(balancer.reconcile(&wanted), [], "after a start too");
    assert_eq!(balancer.way(backend(1)), way);
    wanted.hops.insert(backend(1).ip(), Hop::Unreachable);
    balancer.reconcile(&wanted);
    assert_eq!(balancer.way(backend(1)), Way::default());
}

#[test]
fn after_a_start_nothing_changes_where_nothing_changed() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(3);
    wanted.hops.extend(behind(2..=3, 1));
    balancer.reconcile(&wanted);
    balancer.actual.book = Book::default();
    assert_eq!(balancer.reconcile(&wanted), []);
}

#[test]
fn after_a_start_each_backend_goes_from_its_old_way_to_its_new_one() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(2);
    wanted.hops = behind(1..=2, 1).collect();
    balancer.reconcile(&wanted);
    balancer.actual.book = Book::default();
    // While the agent was away one backend moved behind another gateway, and the first gateway changed its MAC.
    wanted.hops.insert(backend(1).ip(), through(250, 7));
    wanted.hops.insert(backend(2).ip(), through(251, 8));
    let mut tables = balancer.actual.tables.clone();
    let old = balancer.way(backend(1));
    let planned = plan(&wanted, &balancer.actual, balancer.now);
    for change in &planned.changes {
        tables.apply(change);
        let seen: Vec<_> = tables
            .tenants()
            .map(|(id, ..)| tables.backends[&id].way().mac[5])
            .collect();
        assert!(
            [old.mac[5], 7].contains(&seen[0]) && [old.mac[5], 8].contains(&seen[1]),
            "{seen:?}"
        );
    }
    balancer.take(planned);
    assert_eq!(balancer.way(backend(1)).mac[5], 7);
    assert_eq!(balancer.way(backend(2)).mac[5], 8);
}

#[test]
fn an_interface_keeps_its_row_while_it_is_gone() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    let slot = InterfaceSlot::new(1).unwrap();
    wanted.interfaces.insert("eth0".to_owned(), interface(0));
    balancer.reconcile(&wanted);
    assert_eq!(balancer.actual.tables.interfaces[&slot].ifindex, 0);
    assert!(balancer.actual.tables.devices.is_empty());
    wanted.interfaces.insert("eth0".to_owned(), interface(9));
    balancer.reconcile(&wanted);
    assert_eq!(balancer.actual.tables.devices, [(slot, 9)].into());
    assert_eq!(balancer.actual.tables.config.interfaces, 1);
}

#[test]
fn the_row_of_a_removed_interface_is_not_given_away_before_it_has_rested() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    wanted.interfaces = [("eth1".to_owned(), interface(3))].into();
    wanted.hops.clear();
    balancer.reconcile(&wanted);
    let (first, second) = (
        InterfaceSlot::new(1).unwrap(),
        InterfaceSlot::new(2).unwrap(),
    );
    assert_eq!(balancer.actual.tables.devices, [(second, 3)].into());
    assert_eq!(balancer.actual.tables.interfaces[&first].ifindex, 0);
    assert!(balancer.actual.book.waits_for_scan(), "replies may name it");
    balancer.settle(&wanted);
    assert!(!balancer.actual.tables.interfaces.contains_key(&first));
    wanted.interfaces.insert("eth2".to_owned(), interface(4));
    balancer.reconcile(&wanted);
    assert_eq!(
        balancer.actual.tables.devices,
        [(first, 4), (second, 3)].into()
    );
}

#[test]
fn a_way_through_a_removed_interface_goes_before_its_row_is_given_away() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    wanted.interfaces.insert("eth1".to_owned(), interface(3));
    balancer.reconcile(&wanted);
    let eth0 = InterfaceSlot::new(1).unwrap();
    assert_eq!(balancer.way(backend(1)).interface, eth0.get());

    // Whatever is known of its route, a backend can't be reached through an interface that is not ours any more.
    for hop in [Hop::Keep { key: None }, on_link(1, 1).1] {
        let mut without = wanted.clone();
        without.interfaces.remove("eth0");
        without.hops.insert(backend(1).ip(), hop);
        let mut balancer = Balancer {
            actual: balancer.actual.clone(),
            now: balancer.now,
        };
        let changes = balancer.reconcile(&without);
        let place = |is: &dyn Fn(&Change) -> bool| changes.iter().position(is).unwrap();
        let way = place(&|change| matches!(change, Change::BackendWay { .. }));
        let row = place(&|change| matches!(change, Change::Interface { .. }));
        assert!(way < row, "{changes:?}");
        assert_eq!(balancer.way(backend(1)), Way::default());
        balancer.settle(&without);
        without.interfaces.insert("eth2".to_owned(), interface(4));
        balancer.reconcile(&without);
        assert_eq!(balancer.actual.tables.devices[&eth0], 4);
        assert_eq!(balancer.way(backend(1)), Way::default());
    }
}

#[test]
fn an_interface_with_the_index_of_one_that_is_gone_gets_a_row_of_its_own() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    wanted.interfaces = [("eth1".to_owned(), interface(2))].into();
    balancer.reconcile(&wanted);
    // It was renamed: the index is that of another name now.
    wanted.interfaces = [
        ("eth0".to_owned(), interface(2)),
        ("eth1".to_owned(), interface(0)),
    ]
    .into();
    balancer.reconcile(&wanted);
    let second = InterfaceSlot::new(2).unwrap();
    assert_eq!(balancer.actual.tables.devices, [(second, 2)].into());
}

#[test]
fn packets_look_at_no_more_interfaces_than_there_are() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    wanted.interfaces.insert("eth1".to_owned(), interface(3));
    balancer.reconcile(&wanted);
    wanted.interfaces.remove("eth1");
    balancer.reconcile(&wanted);
    let seen = |balancer: &Balancer| balancer.actual.tables.config.interfaces;
    assert_eq!(seen(&balancer), 2, "its row rests");
    balancer.settle(&wanted);
    assert_eq!(seen(&balancer), 1);
}

#[test]
fn the_row_of_a_removed_interface_stays_while_replies_name_it() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    wanted.interfaces.insert("eth1".to_owned(), interface(3));
    balancer.reconcile(&wanted);
    wanted.interfaces.remove("eth1");
    balancer.reconcile(&wanted);
    let second = InterfaceSlot::new(2).unwrap();
    for _ in 0..3 {
        balancer.wait(GRACE);
        let found = References {
            started: balancer.now,
            backends: BTreeSet::new(),
            services: BTreeSet::new(),
            interfaces: [second].into(),
        };
        balancer.actual.book.scanned(&found);
        assert_eq!(balancer.reconcile(&wanted), []);
    }
    assert!(balancer.actual.tables.interfaces.contains_key(&second));
}

#[test]
fn after_a_start_an_interface_that_is_not_there_takes_over_no_row() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    wanted.interfaces.insert("eth0".to_owned(), interface(0));
    balancer.reconcile(&wanted);
    // The next agent can't tell whose the row without an index is.
    balancer.actual.book = Book::default();
    wanted.interfaces = [("eth7".to_owned(), interface(0))].into();
    balancer.reconcile(&wanted);
    wanted.interfaces.insert("eth7".to_owned(), interface(7));
    balancer.reconcile(&wanted);
    let second = InterfaceSlot::new(2).unwrap();
    assert_eq!(balancer.actual.tables.devices, [(second, 7)].into());
}

#[test]
fn a_neighbour_that_no_way_leads_through_is_forgotten() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    wanted.hops = [(backend(1).ip(), through(250, 1))].into();
    balancer.reconcile(&wanted);
    wanted.hops = [(backend(1).ip(), through(251, 2))].into();
    balancer.reconcile(&wanted);
    let Hop::Known { key, .. } = through(250, 1) else {
        unreachable!()
    };
    // It may have another MAC address by now.
    wanted.hops = [(backend(1).ip(), Hop::Keep { key: Some(key) })].into();
    assert_eq!(balancer.reconcile(&wanted), []);
    assert_eq!(balancer.way(backend(1)).mac, [2, 0, 0, 0, 2, 2]);
}

#[test]
fn a_row_that_a_way_still_names_is_nobodys() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    // The row is free, and the way could not be cleared.
    balancer.actual.book = Book::default();
    balancer.actual.tables.interfaces.clear();
    balancer.actual.tables.devices.clear();
    wanted.interfaces = [("eth1".to_owned(), interface(3))].into();
    balancer.reconcile(&wanted);
    let second = InterfaceSlot::new(2).unwrap();
    assert_eq!(balancer.actual.tables.devices, [(second, 3)].into());
    assert_eq!(balancer.way(backend(1)), Way::default());
}

#[test]
fn after_a_start_an_interface_made_anew_gets_another_row() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    balancer.actual.book = Book::default();
    wanted.interfaces.insert("eth0".to_owned(), interface(9));
    balancer.reconcile(&wanted);
    let (first, second) = (
        InterfaceSlot::new(1).unwrap(),
        InterfaceSlot::new(2).unwrap(),
    );
    assert_eq!(balancer.actual.tables.devices, [(second, 9)].into());
    assert_eq!(
        balancer.actual.tables.interfaces[&first].ifindex, 0,
        "replies that name it drop, counted"
    );
    assert_eq!(balancer.way(backend(1)).interface, 2);
}
