//! Backends: their rows, their place in the rotation.

use super::*;

#[test]
fn a_backend_that_fails_is_stopped_before_its_slots_change_and_keeps_its_id() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(3));
    let before = balancer.row(backend(2)).unwrap();
    let mut wanted = desired(3);
    wanted
        .pools
        .insert("web".to_owned(), vec![backend(1), backend(3)]);
    let changes = balancer.reconcile(&wanted);
    let stopped = BackendState {
        flags: BackendState::IN_USE,
        ..before.1
    };
    assert_eq!(
        changes[0],
        Change::BackendState {
            id: before.0,
            state: stopped
        }
    );
    assert!(
        matches!(changes[1], Change::Slots { .. })
            && matches!(changes[2], Change::ServiceSlots { .. })
    );
    assert_eq!(changes.len(), 3);
    assert_eq!(balancer.rotation(), [backend(1), backend(3)]);
    balancer.reconcile(&desired(3));
    assert_eq!(balancer.row(backend(2)), Some(before));
}

#[test]
fn a_backend_that_fails_is_stopped_before_anything_else_of_backends_is_written() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let mut wanted = desired(3);
    wanted.hops.extend([on_link(1, 9)]);
    wanted
        .pools
        .insert("web".to_owned(), vec![backend(1), backend(3)]);
    let changes = balancer.reconcile(&wanted);
    let first = changes.first();
    assert!(
        matches!(first, Some(Change::BackendState { id, .. }) if id.get() == 2),
        "{changes:?}"
    );
}

#[test]
fn a_backend_up_in_one_pool_and_down_in_another_still_accepts() {
    let other = ServiceAddress {
        address: SocketAddr::from(([192, 0, 2, 11], 80)),
        protocol: Protocol::Tcp,
    };
    let mut wanted = desired(2);
    wanted.services.insert(other, service("strict"));
    wanted.pools.insert("strict".to_owned(), vec![backend(1)]);
    let mut balancer = Balancer::new();
    balancer.reconcile(&wanted);
    let (_, state) = balancer.row(backend(2)).unwrap();
    assert_eq!(state.flags, BackendState::IN_USE | BackendState::ACCEPTS);
    let (_, row) = balancer.actual.tables.service_in_force(other).unwrap();
    assert_eq!(balancer.actual.tables.rotation(row), [backend(1)]);
}

#[test]
fn a_removed_backend_keeps_its_row_while_flows_refer_to_it() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let (id, state) = balancer.row(backend(2)).unwrap();
    balancer.reconcile(&desired(1));
    let retired = BackendState {
        flags: BackendState::IN_USE,
        ..state
    };
    for _ in 0..5 {
        balancer.wait(GRACE);
        balancer.scan(&[id]);
        assert_eq!(balancer.reconcile(&desired(1)).len(), 0);
        assert_eq!(balancer.row(backend(2)), Some((id, retired)));
        assert!(balancer.actual.book.is_held(), "a scan soon frees nothing");
    }
    assert!(balancer.actual.book.waits_for_scan());
    balancer.settle(&desired(1));
    assert_eq!(balancer.row(backend(2)), None);
    assert!(!balancer.actual.book.waits_for_scan());
}

#[test]
fn one_clean_scan_is_not_enough() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    balancer.reconcile(&desired(1));
    assert!(!balancer.actual.book.is_held(), "nobody has looked yet");
    balancer.scan(&[]);
    assert!(!balancer.actual.book.is_held());
    balancer.wait(GRACE * 3);
    assert_eq!(
        balancer.reconcile(&desired(1)),
        [],
        "time alone frees nothing"
    );
    balancer.wait(GRACE / 2);
    assert!(balancer.row(backend(2)).is_some());
}

#[test]
fn one_row_that_no_flow_refers_to_is_worth_a_scan_soon() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(3));
    let (id, _) = balancer.row(backend(3)).unwrap();
    balancer.reconcile(&desired(1));
    balancer.wait(GRACE);
    balancer.scan(&[id]);
    assert!(
        !balancer.actual.book.is_held(),
        "the second backend's may be free"
    );
}

#[test]
fn a_slot_of_an_earlier_generation_sends_no_flow_to_the_new_tenant() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let (id, _) = balancer.row(backend(2)).unwrap();
    let row = balancer.actual.tables.backends.get_mut(&id).unwrap();
    let state = row.state();
    row.state = BackendState {
        generation: state.generation + 1,
        ..state
    }
    .pack();
    assert_eq!(balancer.rotation(), [backend(1)]);
    balancer.reconcile(&desired(2));
    assert_eq!(balancer.rotation(), [backend(1), backend(2)], "new slots");
}

#[test]
fn a_new_tenant_has_a_new_generation_and_counters_of_its_own() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let (id, old) = balancer.row(backend(2)).unwrap();
    balancer.reconcile(&desired(1));
    balancer.settle(&desired(1));
    let mut wanted = desired(1);
    wanted.backends.insert(backend(7));
    wanted
        .pools
        .insert("web".to_owned(), vec![backend(1), backend(7)]);
    let changes = balancer.reconcile(&wanted);
    let (new_id, new) = balancer.row(backend(7)).unwrap();
    assert_eq!((new_id, new.generation), (id, old.generation + 1));
    let clear = changes
        .iter()
        .position(|change| *change == Change::ClearBackendCounters(id))
        .unwrap();
    assert!(matches!(changes[clear + 1], Change::Backend { .. }));
}

#[test]
fn a_backend_that_comes_back_finds_its_old_id() {
    let mut balancer = Balancer::new();
    balancer.reconcile(&desired(2));
    let before = balancer.row(backend(2));
    balancer.reconcile(&desired(1));
    balancer.wait(GRACE);
    balancer.scan(&[]);
    balancer.reconcile(&desired(2));
    assert_eq!(balancer.row(backend(2)), before);
    assert!(!balancer.actual.book.waits_for_scan());
}

#[test]
fn backends_without_a_row_are_left_out_and_named() {
    let rows = u16::try_from(MAX_BACKENDS - 1).unwrap();
    let mut balancer = Balancer::new();
    let planned = plan(&desired(rows + 1), &balancer.actual, balancer.now);
    assert_eq!(planned.refused, [Refusal::NoBackendId(backend(rows + 1))]);
    balancer.take(planned);
    assert_eq!(balancer.rotation().len(), usize::from(rows));
}
