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

/// What the maps should hold.
pub(super) fn desired(model: &Model, health: &Health, network: &Observation, ticks_per_second: u32) -> Desired {
    let used: BTreeSet<_> = model.services.iter().map(|service| service.pool.as_str()).collect();
    let pools = || model.pools.iter().filter(|pool| used.contains(pool.name.as_str()));
    let rotation = |pool: &str, backend: SocketAddr| {
        let reachable = network.ways.get(&backend.ip()).is_none_or(|way| way.hop != Hop::Unreachable);
        reachable && health.takes_flows(pool, backend)
    };
    Desired {
        host_forwards: network.host_forwards,
        ticks_per_second,
        interfaces: interfaces(model, network),
        services: services(model),
        pools: pools()
            .map(|pool| {
                let backends = pool.backends.iter().map(|backend| backend.address);
                (pool.name.clone(), backends.filter(|backend| rotation(&pool.name, *backend)).collect())
            })
            .collect(),
        backends: pools().flat_map(|pool| &pool.backends).map(|backend| backend.address).collect(),
        hops: network.ways.iter().map(|(address, way)| (*address, way.hop.clone())).collect(),
    }
}

/// What must be watched: the interfaces, and the ways to all backends that may have flows.
pub(super) fn watch(model: &Model, tables: &Tables) -> Watch {
    let configured = model.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.address.ip());
    let removed = tables.tenants().map(|(_, address, _)| address.ip());
    let destinations: BTreeSet<IpAddr> = configured.chain(removed).collect();
    Watch { interfaces: model.interfaces.iter().map(|interface| interface.name.clone()).collect(), destinations }
}

/// What the maps in force say of a backend of a pool: in rotation of a service, out of it, or unknown.
pub(super) fn adopted(model: &Model, tables: &Tables, pool: &str, backend: SocketAddr) -> Option<bool> {
    tables.tenants().find(|(_, address, _)| *address == backend)?;
    let services = model.services.iter().filter(|service| service.pool == pool);
    let in_force = services.filter_map(|service| {
        let address = ServiceAddress { address: service.address, protocol: service.protocol };
        tables.service_in_force(address)
    });
    in_force.map(|(_, row)| tables.rotation(row).contains(&backend)).reduce(|one, other| one || other)
}

fn interfaces(model: &Model, network: &Observation) -> BTreeMap<String, Interface> {
    let of = |name: &String| {
        let link = network.links.get(name).copied().flatten();
        link.map_or_else(Interface::default, |link| Interface { ifindex: link.ifindex, mac: link.mac, ipv4: link.ipv4 })
    };
    model.interfaces.iter().map(|interface| (interface.name.clone(), of(&interface.name))).collect()
}

fn services(model: &Model) -> BTreeMap<ServiceAddress, Service> {
    model
        .services
        .iter()
        .map(|service| {
            let address = ServiceAddress { address: service.address, protocol: service.protocol };
            let (mode, scheduler) = (service.mode, service.scheduler);
            (address, Service { mode, scheduler, pool: service.pool.clone() })
        })
        .collect()
}
