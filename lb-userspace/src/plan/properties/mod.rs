//! Random histories: whatever happens, a packet that comes between any two changes sees a correct state.

mod invariants;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::abi::{
    BackendId, InterfaceSlot, Mode, Protocol, Scheduler, ServiceId, ServiceKey,
    word::{BackendState, Slot, SlotRange, Way},
};
use proptest::prelude::*;

use invariants::{check_identities, check_result};
use steps::{Step, step};

use super::{
    Actual, Change, Desired, GRACE, Hop, HopKey, Interface, References, Salvage, Service,
    ServiceAddress, Tables, plan,
    tables::{backend_address, filter_places, service_address},
};

const INTERFACES: [&str; 2] = ["left", "right"];
const POOLS: [&str; 3] = ["a", "b", "c"];
const BACKENDS: u8 = 6;
const SERVICES: u8 = 4;

/// A flow entry, and what it meant when it was made.
#[derive(Clone, Debug)]
struct Flow {
    service: ServiceId,
    service_address: ServiceAddress,
    backend: BackendId,
    generation: u16,
    address: SocketAddr,
    /// Row of the interface it leaves through, and the interface.
    slot: Option<(InterfaceSlot, String)>,
}

struct World {
    now: Instant,
    members: BTreeMap<usize, BTreeMap<u8, bool>>,
    desired: Desired,
    actual: Actual,
    flows: Vec<Flow>,
    /// Ranges that were in force, until when they must stay as they are, and what they held.
    recent: Vec<(SlotRange, Instant, Vec<u64>)>,
    next_ifindex: u32,
    /// Which changes fail on the side: bit `n` is for those whose place in the plan is `n` modulo 64.
    failures: u64,
}

fn backend(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number + 1], 80))
}

fn service(number: u8) -> ServiceAddress {
    let protocol = if number.is_multiple_of(2) {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    ServiceAddress {
        address: SocketAddr::from(([192, 0, 2, 1 + number / 2], 80)),
        protocol,
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            members: (0..POOLS.len())
                .map(|pool| (pool, BTreeMap::new()))
                .collect(),
            desired: Desired {
                ticks_per_second: 250,
                ..Desired::default()
            },
            actual: Actual::default(),
            flows: Vec::new(),
            recent: Vec::new(),
            next_ifindex: 10,
            failures: 0,
        };
        for interface in 0..2 {
            world.happen(&Step::Link {
                interface,
                configured: true,
                present: true,
            });
        }
        world
    }

    fn happen(&mut self, step: &Step) {
        match *step {
            Step::Service {
                service: number,
                pool,
            } => {
                let pool = pool.map(|pool| POOLS[pool].to_owned());
                match pool {
                    Some(pool) => {
                        let wanted = Service {
                            mode: Mode::Nat,
                            scheduler: Scheduler::RoundRobin,
                            pool,
                        };
                        self.desired.services.insert(service(number), wanted);
                    }
                    None => {
                        self.desired.services.remove(&service(number));
                    }
                }
            }
            Step::Member { pool, backend } => {
                let members = self.members.get_mut(&pool).unwrap();
                if members.remove(&backend).is_none() {
                    members.insert(backend, true);
                }
            }
            Step::Up { pool, backend } => {
                if let Some(up) = self.members.get_mut(&pool).unwrap().get_mut(&backend) {
                    *up = !*up;
                }
            }
            Step::Route { .. } | Step::Lost { .. } | Step::Link { .. } => self.network(step),
            Step::Advance(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Step::Open(number) => self.open(service(number)),
            Step::Close(number) => {
                if !self.flows.is_empty() {
                    self.flows.swap_remove(number % self.flows.len());
                }
            }
            Step::Scan => self.scan(),
            Step::Restart => {
                self.actual.book = super::Book::default();
                // Time alone guards ranges, and a restart takes longer than any packet.
                self.recent.clear();
            }
        }
        self.reconcile();
    }

    /// A new flow finds its backend through the maps.
    fn open(&mut self, address: ServiceAddress) {
        let tables = &self.actual.tables;
        let Some((id, row)) = tables.service_in_force(address) else {
            return;
        };
        for word in tables.slots.words(row.range()) {
            let slot = Slot::unpack(word);
            let backend = BackendId::new(slot.backend).unwrap();
            let row = tables.backends[&backend];
            let slot_used = InterfaceSlot::new(row.way().interface);
            self.flows.push(Flow {
                service: id,
                service_address: address,
                backend,
                generation: slot.generation,
                address: backend_address(&row),
                slot: slot_used.and_then(|slot| Some((slot, self.interface_at(slot)?))),
            });
        }
    }

    fn interface_at(&self, slot: InterfaceSlot) -> Option<String> {
        let ifindex = self.actual.tables.interfaces.get(&slot)?.ifindex;
        let mut present = self
            .desired
            .interfaces
            .iter()
            .filter(|(_, interface)| interface.ifindex != 0);
        present
            .find(|(_, interface)| interface.ifindex == ifindex)
            .map(|(name, _)| name.clone())
    }

    fn scan(&mut self) {
        let found = References {
            started: self.now,
            backends: self.flows.iter().map(|flow| flow.backend).collect(),
            services: self.flows.iter().map(|flow| flow.service).collect(),
            interfaces: self
                .flows
                .iter()
                .filter_map(|flow| Some(flow.slot.as_ref()?.0))
                .collect(),
        };
        self.actual.book.scanned(&found);
    }

    fn reconcile(&mut self) {
        self.desired.pools = self
            .members
            .iter()
            .map(|(pool, members)| {
                let up = members
                    .iter()
                    .filter(|(_, up)| **up)
                    .map(|(number, _)| backend(*number));
                (POOLS[*pool].to_owned(), up.collect())
            })
            .collect();
        let used: BTreeSet<_> = self
            .desired
            .services
            .values()
            .map(|service| service.pool.as_str())
            .collect();
        let members = self
            .members
            .iter()
            .filter(|(pool, _)| used.contains(POOLS[**pool]));
        self.desired.backends = members
            .flat_map(|(_, members)| members.keys())
            .map(|number| backend(*number))
            .collect();

        let before = self.actual.tables.clone();
        let planned = plan(&self.desired, &self.actual, self.now);
        let mut after = before.clone();
        for change in &planned.changes {
            after.apply(change);
        }
        self.remember_ranges(&before);
        let mut tables = before.clone();
        for change in &planned.changes {
            tables.apply(change);
            self.check_in_between(&before, &tables, &after);
        }
        self.check_with_failures(&before, &planned.changes, &after);
        self.actual = Actual {
            tables,
            book: planned.book,
        };
        if planned.refused.is_empty() {
            check_result(&self.desired, &self.actual.tables);
        }
        let again = plan(&self.desired, &self.actual, self.now);
        assert_eq!(again.changes, [], "a second plan at once has nothing to do");
        check_identities(&self.desired, &before, &self.actual.tables);
        self.check_ways();
        self.check_flows();
    }

    /// What some failures leave is correct at every moment too, and loses no change that nothing stands in the way of.
    fn check_with_failures(&self, before: &Tables, changes: &[Change], after: &Tables) {
        let mut tables = before.clone();
        let mut salvage = Salvage::default();
        for (place, change) in changes.iter().enumerate() {
            let fails = self.failures >> (place % 64) & 1 == 1;
            if !fails && salvage.may_follow(change, &tables) {
                tables.apply(change);
                self.check_in_between(before, &tables, after);
            } else {
                salvage.leave_out(change, &tables);
            }
        }
        if self.failures == 0 {
            assert_eq!(tables, *after);
        }
    }

    fn remember_ranges(&mut self, before: &Tables) {
        let now = self.now;
        self.recent.retain(|(_, until, _)| now < *until);
        for range in before.ranges().into_iter().map(SlotRange::unpack) {
            self.recent.retain(|(other, ..)| *other != range);
            self.recent
                .push((range, now + GRACE, before.slots.words(range).collect()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_moment_of_every_history_is_correct(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.happen(step);
        }
    }

    #[test]
    fn what_failures_leave_of_a_plan_is_correct(
        steps in proptest::collection::vec((step(), any::<u64>(), any::<u64>()), 1..60)
    ) {
        let mut world = World::new();
        for (step, some, others) in &steps {
            // A quarter of the changes.
            world.failures = some & others;
            world.happen(step);
        }
    }
}
