//! What a plan does in each case an operator meets.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::abi::{
    BackendId, InterfaceRow, InterfaceSlot, MAX_BACKENDS, MAX_SLOTS, Mode, NextHopId, Protocol,
    Scheduler, ServiceId, ServiceRow,
    word::{BackendState, SlotRange, Way},
};

use super::{
    Actual, Change, Desired, GRACE, Hop, HopKey, Interface, References, Refusal, Service,
    ServiceAddress, plan,
};

fn backend(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 80))
}

fn www() -> ServiceAddress {
    ServiceAddress {
        address: SocketAddr::from(([192, 0, 2, 10], 80)),
        protocol: Protocol::Tcp,
    }
}

fn service(pool: &str) -> Service {
    Service {
        mode: Mode::Nat,
        scheduler: Scheduler::RoundRobin,
        pool: pool.to_owned(),
    }
}

fn interface(ifindex: u32) -> Interface {
    Interface {
        ifindex,
        mac: [2, 0, 0, 0, 0, 1],
        ipv4: None,
    }
}

fn on_link(number: u16, mac: u8) -> (IpAddr, Hop) {
    let key = HopKey {
        interface: "eth0".to_owned(),
        address: backend(number).ip(),
    };
    (
        backend(number).ip(),
        Hop::Known {
            key,
            mac: [2, 0, 0, 0, 1, mac],
        },
    )
}

fn through(gateway: u8, mac: u8) -> Hop {
    let key = HopKey {
        interface: "eth0".to_owned(),
        address: IpAddr::from([10, 0, 0, gateway]),
    };
    Hop::Known {
        key,
        mac: [2, 0, 0, 0, 2, mac],
    }
}

/// One service over backends 1 to `count`, all up and on-link.
fn desired(count: u16) -> Desired {
    Desired {
        ticks_per_second: 250,
        interfaces: [("eth0".to_owned(), interface(2))].into(),
        services: [(www(), service("web"))].into(),
        pools: [("web".to_owned(), (1..=count).map(backend).collect())].into(),
        backends: (1..=count).map(backend).collect(),
        hops: (1..=count).map(|number| on_link(number, 1)).collect(),
        ..Desired::default()
    }
}

/// A balancer on which time passes.
struct Balancer {
    actual: Actual,
    now: Instant,
}

impl Balancer {
    fn new() -> Self {
        Self {
            actual: Actual::default(),
            now: Instant::now(),
        }
    }

    /// Plans and applies; gives the changes.
    fn reconcile(&mut self, desired: &Desired) -> Vec<Change> {
        let plan = plan(desired, &self.actual, self.now);
        assert_eq!(plan.refused, []);
        self.take(plan)
    }

    fn take(&mut self, plan: super::Plan) -> Vec<Change> {
        for change in &plan.changes {
            self.actual.tables.apply(change);
        }
        self.actual.book = plan.book;
        plan.changes
    }

    /// A scan of the flow table that finds these backends referred to.
    fn scan(&mut self, backends: &[BackendId]) {
        let found = References {
            started: self.now,
            backends: backends.iter().copied().collect(),
            services: BTreeSet::new(),
            interfaces: BTreeSet::new(),
        };
        self.actual.book.scanned(&found);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Two clean scans far enough apart.
    fn settle(&mut self, desired: &Desired) {
        self.scan(&[]);
        self.wait(GRACE);
        self.scan(&[]);
        self.reconcile(desired);
    }

    fn row(&self, address: SocketAddr) -> Option<(BackendId, BackendState)> {
        self.actual
            .tables
            .tenants()
            .find(|(_, tenant, _)| *tenant == address)
            .map(|(id, _, state)| (id, state))
    }

    fn rotation(&self) -> Vec<SocketAddr> {
        let (_, row) = self.actual.tables.service_in_force(www()).unwrap();
        self.actual.tables.rotation(row)
    }

    fn way(&self, address: SocketAddr) -> Way {
        let (_, state) = self.row(address).unwrap();
        NextHopId::new(state.next_hop)
            .map(|id| self.actual.tables.next_hops[&id].way())
            .unwrap_or_default()
    }
}

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
            Change::NextHop { .. } => "next hop",
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
        "next hop",
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
    balancer.scan(&[]);
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
    balancer.actual.book = super::Book::default();
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
    balancer.actual.book = super::Book::default();
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
    balancer.actual.book = super::Book::default();
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
    balancer.actual.book = super::Book::default();
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

#[test]
fn drift_is_repaired() {
    let mut balancer = Balancer::new();
    let wanted = desired(3);
    balancer.reconcile(&wanted);
    let good = balancer.actual.tables.clone();
    let tables = &mut balancer.actual.tables;
    tables.keys.clear();
    tables.filter[5] = u64::MAX;
    tables.next_hops.values_mut().for_each(|row| row.way ^= 1);
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
        (&tables.keys, &tables.filter, &tables.next_hops),
        (&good.keys, &good.filter, &good.next_hops)
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

#[test]
fn backends_without_a_row_are_left_out_and_named() {
    let rows = u16::try_from(MAX_BACKENDS - 1).unwrap();
    let mut balancer = Balancer::new();
    let planned = plan(&desired(rows + 1), &balancer.actual, balancer.now);
    assert_eq!(planned.refused, [Refusal::NoBackendId(backend(rows + 1))]);
    balancer.take(planned);
    assert_eq!(balancer.rotation().len(), usize::from(rows));
}
