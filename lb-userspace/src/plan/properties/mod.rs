//! Random histories: whatever happens, a packet that comes between any two changes sees a correct state.

mod invariants;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::abi::{
    BackendId, InterfaceSlot, Mode, NextHopId, Protocol, Scheduler, ServiceId, ServiceKey,
    word::{BackendState, Slot, SlotRange, Way},
};
use proptest::prelude::*;

use invariants::{check_identities, check_result};

use super::{
    Actual, Desired, GRACE, Hop, HopKey, Interface, References, Service, ServiceAddress, Tables,
    plan,
    tables::{backend_address, filter_places, service_address},
};

const INTERFACES: [&str; 2] = ["left", "right"];
const POOLS: [&str; 3] = ["a", "b", "c"];
const BACKENDS: u8 = 6;
const SERVICES: u8 = 4;

/// Something that happens to the balancer.
#[derive(Clone, Debug)]
enum Step {
    Service {
        service: u8,
        pool: Option<usize>,
    },
    Member {
        pool: usize,
        backend: u8,
    },
    Up {
        pool: usize,
        backend: u8,
    },
    Route {
        backend: u8,
        interface: usize,
        gateway: Option<u8>,
        mac: u8,
    },
    Lost {
        backend: u8,
        known: bool,
    },
    Link {
        interface: usize,
        configured: bool,
        present: bool,
    },
    Advance(u64),
    Open(u8),
    Close(usize),
    Scan,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let backend = || 0..BACKENDS;
    prop_oneof![
        3 => (0..SERVICES, proptest::option::weighted(0.7, 0..POOLS.len()))
            .prop_map(|(service, pool)| Step::Service { service, pool }),
        4 => (0..POOLS.len(), backend()).prop_map(|(pool, backend)| Step::Member { pool, backend }),
        4 => (0..POOLS.len(), backend()).prop_map(|(pool, backend)| Step::Up { pool, backend }),
        4 => (backend(), 0..2_usize, proptest::option::of(0..2_u8), 0..3_u8)
            .prop_map(|(backend, interface, gateway, mac)| Step::Route { backend, interface, gateway, mac }),
        1 => (backend(), any::<bool>()).prop_map(|(backend, known)| Step::Lost { backend, known }),
        1 => (0..2_usize, proptest::bool::weighted(0.8), proptest::bool::weighted(0.8))
            .prop_map(|(interface, configured, present)| Step::Link { interface, configured, present }),
        3 => (0..3_000_u64).prop_map(Step::Advance),
        6 => (0..SERVICES).prop_map(Step::Open),
        4 => any::<usize>().prop_map(Step::Close),
        4 => Just(Step::Scan),
        1 => Just(Step::Restart),
    ]
}

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
                // Time alone guards ranges and next hops, and a restart takes longer than any packet.
                self.recent.clear();
            }
        }
        self.reconcile();
    }

    /// Something happens to the host's network.
    fn network(&mut self, step: &Step) {
        match *step {
            Step::Route {
                backend: number,
                interface,
                gateway,
                mac,
            } => {
                let address = gateway.map_or(backend(number).ip(), |host| {
                    IpAddr::from([10, 0, 0, 250 + host])
                });
                let key = HopKey {
                    interface: INTERFACES[interface].to_owned(),
                    address,
                };
                // A neighbour has one MAC address, whoever is behind it.
                for hop in self.desired.hops.values_mut() {
                    if let Hop::Known {
                        key: other,
                        mac: known,
                    } = hop
                        && *other == key
                    {
                        *known = [2, 0, 0, 0, 0, mac];
                    }
                }
                self.desired.hops.insert(
                    backend(number).ip(),
                    Hop::Known {
                        key,
                        mac: [2, 0, 0, 0, 0, mac],
                    },
                );
            }
            Step::Lost {
                backend: number,
                known: true,
            } => {
                let place = self
                    .desired
                    .hops
                    .entry(backend(number).ip())
                    .or_insert(Hop::Unreachable);
                let key = match place {
                    Hop::Known { key, .. } => Some(key.clone()),
                    _ => None,
                };
                *place = Hop::Keep { key };
            }
            Step::Lost {
                backend: number,
                known: false,
            } => {
                self.desired
                    .hops
                    .insert(backend(number).ip(), Hop::Unreachable);
            }
            Step::Link {
                interface,
                configured,
                present,
            } => {
                self.next_ifindex += 1;
                let name = INTERFACES[interface].to_owned();
                let ifindex = if present { self.next_ifindex } else { 0 };
                let state = Interface {
                    ifindex,
                    mac: [2, 1, 1, 1, 1, 1],
                    ipv4: Some([10, 0, 0, 254].into()),
                };
                self.desired.interfaces.remove(&name);
                if configured {
                    self.desired.interfaces.insert(name, state);
                }
            }
            _ => {}
        }
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
            let way = NextHopId::new(row.state().next_hop).map(|id| tables.next_hops[&id].way());
            let slot_used = way.and_then(|way| InterfaceSlot::new(way.interface));
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
        self.check_flows();
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
}
