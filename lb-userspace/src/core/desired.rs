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
