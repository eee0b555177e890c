//! Interfaces, next hops and neighbours.

use super::*;

#[test]
fn a_new_mac_is_one_word_and_a_new_gateway_another_row() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(2);
    wanted.hops = (1..=2)
        .map(|number| (backend(number).ip(), through(250, 1)))
        .collect();
    balancer.reconcile(&wanted);
    let before = balancer.row(backend(1)).unwrap().1.next_hop;
    assert_eq!(
        balancer.row(backend(2)).unwrap().1.next_hop,
        before,
        "one gateway, one row"
    );

    wanted.hops = (1..=2)
        .map(|number| (backend(number).ip(), through(250, 9)))
        .collect();
    let changes = balancer.reconcile(&wanted);
    assert!(matches!(changes[..], [Change::NextHop { .. }]));
    assert_eq!(balancer.way(backend(2)).mac, [2, 0, 0, 0, 2, 9]);

    wanted.hops.insert(backend(1).ip(), through(251, 5));
    let changes = balancer.reconcile(&wanted);
    assert!(matches!(
        changes[..],
        [Change::NextHop { .. }, Change::BackendState { .. }]
    ));
    assert_eq!(balancer.way(backend(1)).mac, [2, 0, 0, 0, 2, 5]);
    assert_eq!(balancer.way(backend(2)).mac, [2, 0, 0, 0, 2, 9]);
}

#[test]
fn a_next_hop_that_nothing_names_rests_before_its_row_is_cleared() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(1);
    balancer.reconcile(&wanted);
    let old = balancer.row(backend(1)).unwrap().1.next_hop;
    wanted.hops.insert(backend(1).ip(), through(250, 1));
    balancer.reconcile(&wanted);
    assert_eq!(balancer.reconcile(&wanted), []);
    assert_eq!(balancer.actual.book.next_wake(), Some(balancer.now + GRACE));
    balancer.wait(GRACE);
    let cleared = Change::NextHop {
        id: NextHopId::new(old).unwrap(),
        way: Way::default(),
    };
    assert_eq!(balancer.reconcile(&wanted), [cleared]);
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
    wanted.hops.insert(backend(2).ip(), through(250, 1));
    wanted.hops.insert(backend(3).ip(), through(250, 1));
    balancer.reconcile(&wanted);
    balancer.actual.book = Book::default();
    assert_eq!(balancer.reconcile(&wanted), []);
}

#[test]
fn after_a_start_a_row_is_not_rewritten_under_a_backend_that_stays() {
    let mut balancer = Balancer::new();
    let mut wanted = desired(2);
    wanted.hops = (1..=2)
        .map(|number| (backend(number).ip(), through(250, 1)))
        .collect();
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
            .map(|(_, _, state)| {
                tables.next_hops[&NextHopId::new(state.next_hop).unwrap()]
                    .way()
                    .mac[5]
            })
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
