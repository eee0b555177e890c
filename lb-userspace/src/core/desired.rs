//! From configuration, health and network to what the maps should hold. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::health::Health;
use crate::{
    model::Model,
    neighbours::{Observation, Watch},
    plan::{Desired, Hop, Interface, Service, ServiceAddress, Tables},
};

/// What a data plane is from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constants {
    pub(super) ticks_per_second: u32,
    pub(super) flow_seed: u64,
}

/// What the maps should hold.
pub(super) fn desired(
    model: &Model,
    health: &Health,
    network: &Observation,
    constants: Constants,
) -> Desired {
    let used: BTreeSet<_> = model
        .services
        .iter()
        .map(|service| service.pool.as_str())
        .collect();
    let pools = || {
        model
            .pools
            .iter()
            .filter(|pool| used.contains(pool.name.as_str()))
    };
    let rotation = |pool: &str, backend: SocketAddr| {
        let reachable = network
            .ways
            .get(&backend.ip())
            .is_none_or(|way| way.hop != Hop::Unreachable);
        reachable && health.takes_flows(pool, backend)
    };
    Desired {
        host_forwards: network.host_forwards,
        ticks_per_second: constants.ticks_per_second,
        flow_seed: constants.flow_seed,
        interfaces: interfaces(model, network),
        services: services(model),
        pools: pools()
            .map(|pool| {
                let backends = pool.backends.iter().map(|backend| backend.address);
                (
                    pool.name.clone(),
                    backends
                        .filter(|backend| rotation(&pool.name, *backend))
                        .collect(),
                )
            })
            .collect(),
        backends: pools()
            .flat_map(|pool| &pool.backends)
            .map(|backend| backend.address)
            .collect(),
        hops: network
            .ways
            .iter()
            .map(|(address, way)| (*address, way.hop.clone()))
            .collect(),
    }
}

/// What must be watched: the interfaces, and the ways to all backends that may have flows.
pub(super) fn watch(model: &Model, tables: &Tables) -> Watch {
    let configured = model
        .pools
        .iter()
        .flat_map(|pool| &pool.backends)
        .map(|backend| backend.address.ip());
    let removed = tables.tenants().map(|(_, address, _)| address.ip());
    let destinations: BTreeSet<IpAddr> = configured.chain(removed).collect();
    Watch {
        interfaces: model
            .interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect(),
        destinations,
    }
}

/// What the maps in force say of backends.
pub(super) struct Adopted {
    known: BTreeSet<SocketAddr>,
    /// Of each pool that a service in force uses, the backends that take new flows.
    rotations: BTreeMap<String, BTreeSet<SocketAddr>>,
}

impl Adopted {
    pub(super) fn new(model: &Model, tables: &Tables) -> Self {
        let mut rotations: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for service in &model.services {
            let address = ServiceAddress {
                address: service.address,
                protocol: service.protocol,
            };
            let Some((_, row)) = tables.service_in_force(address) else {
                continue;
            };
            let rotation = rotations.entry(service.pool.clone()).or_default();
            // Services of one pool mostly share their slots.
            if seen.insert((service.pool.as_str(), row.slots)) {
                rotation.extend(tables.rotation(row));
            }
        }
        Self {
            known: tables.tenants().map(|(_, address, _)| address).collect(),
            rotations,
        }
    }

    /// In rotation of a service of the pool, out of it, or unknown.
    pub(super) fn state(&self, pool: &str, backend: SocketAddr) -> Option<bool> {
        let rotation = self.rotations.get(pool)?;
        self.known
            .contains(&backend)
            .then(|| rotation.contains(&backend))
    }
}

fn interfaces(model: &Model, network: &Observation) -> BTreeMap<String, Interface> {
    let of = |name: &String| {
        let link = network.links.get(name).copied().flatten();
        link.map_or_else(Interface::default, |link| Interface {
            ifindex: link.ifindex,
            mac: link.mac,
            ipv4: link.ipv4,
            mtu: link.mtu,
        })
    };
    model
        .interfaces
        .iter()
        .map(|interface| (interface.name.clone(), of(&interface.name)))
        .collect()
}

fn services(model: &Model) -> BTreeMap<ServiceAddress, Service> {
    model
        .services
        .iter()
        .map(|service| {
            let address = ServiceAddress {
                address: service.address,
                protocol: service.protocol,
            };
            let (mode, scheduler) = (service.mode, service.scheduler);
            (
                address,
                Service {
                    mode,
                    scheduler,
                    pool: service.pool.clone(),
                },
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        core::testing::{address, model},
        model,
        plan::{Actual, plan},
    };

    /// The maps for a service `www` whose slots are of these backends.
    fn in_force(services: &[(SocketAddr, &[u8])]) -> Tables {
        let mut wanted = Desired::default();
        for (number, (vip, backends)) in services.iter().enumerate() {
            let at = ServiceAddress {
                address: *vip,
                protocol: model::Protocol::Tcp,
            };
            let pool = format!("pool{number}");
            let service = Service {
                mode: model::Mode::Nat,
                scheduler: model::Scheduler::RoundRobin,
                pool: pool.clone(),
            };
            let backends: Vec<_> = backends.iter().map(|number| address(*number)).collect();
            wanted.services.insert(at, service);
            wanted.backends.extend(&backends);
            wanted.pools.insert(pool, backends);
        }
        let mut tables = Tables::default();
        for change in plan(&wanted, &Actual::default(), Instant::now()).changes {
            tables.apply(&change);
        }
        tables
    }

    #[test]
    fn ways_to_backends_that_were_removed_are_watched_while_they_have_a_row() {
        let tables = in_force(&[(model(1).services[0].address, &[1, 7])]);
        let watch = watch(&model(1), &tables);
        assert_eq!(
            watch.destinations,
            [address(1).ip(), address(7).ip()].into()
        );
        assert_eq!(watch.interfaces, ["eth0".to_owned()].into());
    }

    #[test]
    fn a_backend_that_the_maps_do_not_know_is_adopted_as_unknown() {
        let mut tables = in_force(&[(model(2).services[0].address, &[1, 2])]);
        let state =
            |tables: &Tables, number| Adopted::new(&model(3), tables).state("web", address(number));
        assert_eq!(state(&tables, 1), Some(true));
        assert_eq!(state(&tables, 3), None);
        tables.services.values_mut().for_each(|row| row.slots = 0);
        assert_eq!(state(&tables, 1), Some(false), "known, and out of rotation");
        assert_eq!(
            Adopted::new(&model(3), &tables).state("other", address(1)),
            None
        );
    }

    #[test]
    fn a_backend_is_in_rotation_where_any_service_of_its_pool_sends_flows_to_it() {
        let mut both = model(2);
        let mut second = both.services[0].clone();
        second.address = address(99);
        both.services.push(second);
        let first = both.services[0].address;
        let tables = in_force(&[(first, &[1]), (address(99), &[2])]);
        let adopted = Adopted::new(&both, &tables);
        for number in [1, 2] {
            assert_eq!(adopted.state("web", address(number)), Some(true));
        }
    }
}
