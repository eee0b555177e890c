//! What holds across sections: names and sockets that stand twice, references, limits, and what invites trouble.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

use super::{
    diagnostic::Report,
    draft::{BackendDraft, Draft, PoolDraft, ServiceDraft},
    section::{Located, nearest},
};
use crate::model::Protocol;

/// Most interfaces; the arrays of the program hold as many.
const MAX_INTERFACES: usize = 16;
/// Most services, and most backends, counted once however many pools name them.
const MAX_SERVICES: usize = 4_096;
const MAX_BACKENDS: usize = 4_096;
/// Most backends of all pools together, counted in each. A pool's backends take as many slots, twice while they change,
/// and the arena holds 2^20.
const MAX_MEMBERS: usize = 1 << 17;

/// Most backends of all services together, counted in each: every one is a line of `lb status` and two series of the
/// metrics, so this bounds how much a question costs the agent.
const MAX_PAIRS: usize = 1 << 17;

/// Reports every breach.
pub(super) fn check(draft: &Draft, report: &mut Report<'_>) {
    interfaces(draft, report);
    unique(
        draft.pools.iter().filter_map(|pool| pool.name.as_ref()),
        |name| format!("pool \"{name}\""),
        report,
    );
    for pool in &draft.pools {
        members(pool, report);
    }
    unique(
        draft
            .services
            .iter()
            .filter_map(|service| service.name.as_ref()),
        |name| format!("service \"{name}\""),
        report,
    );
    sockets(&draft.services, report);
    references(draft, report);
    vip_is_backend(draft, report);
    shared_backends(draft, report);
    limits(draft, report);
}

/// Reports each value that stands a second time.
fn unique<'d, T: Eq + Hash + 'd>(
    values: impl Iterator<Item = &'d Located<T>>,
    what: impl Fn(&T) -> String,
    report: &mut Report<'_>,
) {
    let mut first = HashMap::new();
    for located in values {
        match first.entry(&located.value) {
            Entry::Vacant(entry) => {
                entry.insert(&located.span);
            }
            Entry::Occupied(entry) => {
                let line = report.line(entry.get().start);
                let message = format!("{} is already on line {line}", what(&located.value));
                report.error(&located.span, message, "give each its own, or remove one");
            }
        }
    }
}

fn interfaces(draft: &Draft, report: &mut Report<'_>) {
    if let Some(beyond) = draft
        .interfaces
        .get(MAX_INTERFACES)
        .and_then(|draft| draft.name.as_ref())
    {
        let message = format!("{} interfaces are too many", draft.interfaces.len());
        report.error(
            &beyond.span,
            message,
            format!("attach to at most {MAX_INTERFACES}"),
        );
    }
    let names = draft
        .interfaces
        .iter()
        .filter_map(|draft| draft.name.as_ref());
    unique(names, |name| format!("interface \"{name}\""), report);
}

fn members(pool: &PoolDraft, report: &mut Report<'_>) {
    let addresses = || {
        pool.backends
            .iter()
            .filter_map(|backend| backend.address.as_ref())
    };
    unique(
        addresses(),
        |address| format!("backend {address} of this pool"),
        report,
    );
    // A name that comes from a duplicate address is not a second finding.
    let named = pool
        .backends
        .iter()
        .filter(|backend| !named_by_address(backend));
    unique(
        named.filter_map(|backend| backend.name.as_ref()),
        |name| format!("backend \"{name}\" of this pool"),
        report,
    );

    let weights = pool.backends.iter().map(|backend| backend.weight.as_ref());
    if let (Some(name), false) = (&pool.name, pool.backends.is_empty())
        && weights.flatten().filter(|weight| weight.value == 0).count() == pool.backends.len()
    {
        let message = format!(
            "every backend of pool \"{}\" has weight 0, so none takes new flows",
            name.value
        );
        report.warning(&name.span, message, "give one weight = 1");
    }
}

fn named_by_address(backend: &BackendDraft) -> bool {
    match (&backend.name, &backend.address) {
        (Some(name), Some(address)) => name.span == address.span,
        _ => false,
    }
}

fn sockets(services: &[ServiceDraft], report: &mut Report<'_>) {
    let sockets: Vec<Located<(u8, SocketAddr)>> = services
        .iter()
        .filter_map(|service| service.protocol.zip(service.address.as_ref()))
        .map(|(protocol, address)| address.with((protocol as u8, address.value)))
        .collect();
    let what = |(protocol, address): &(u8, SocketAddr)| {
        let word = if *protocol == Protocol::Tcp as u8 {
            "tcp"
        } else {
            "udp"
        };
        format!("a service at {word} {address}")
    };
    unique(sockets.iter(), what, report);
}

fn references(draft: &Draft, report: &mut Report<'_>) {
    let names: Vec<&str> = draft
        .pools
        .iter()
        .filter_map(|pool| pool.name.as_ref())
        .map(|name| name.value.as_str())
        .collect();
    let there: HashSet<&str> = names.iter().copied().collect();
    let mut used = HashSet::new();
    let mut broken = false;
    for reference in draft
        .services
        .iter()
        .filter_map(|service| service.pool.as_ref())
    {
        let wanted = reference.value.as_str();
        used.insert(wanted);
        if there.contains(wanted) {
            continue;
        }
        broken = true;
        let help = match nearest(wanted, &names) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("add [[pool]] with name = {wanted:?}"),
        };
        report.error(
            &reference.span,
            format!("there is no pool {wanted:?}"),
            help,
        );
    }
    // A pool whose name is mistyped where it is used would be reported a second time, in words that mislead.
    for name in draft
        .pools
        .iter()
        .filter_map(|pool| pool.name.as_ref())
        .filter(|_| !broken)
    {
        if !used.contains(name.value.as_str()) {
            let message = format!("no service uses pool \"{}\"", name.value);
            report.warning(
                &name.span,
                message,
                "remove it, or name it in a [[service]]; its backends are checked all the same",
            );
        }
    }
}

/// A VIP that is a backend would have the balancer send packets to itself, or take the backend's own traffic.
fn vip_is_backend(draft: &Draft, report: &mut Report<'_>) {
    let mut vips: HashMap<IpAddr, usize> = HashMap::new();
    for address in draft
        .services
        .iter()
        .filter_map(|service| service.address.as_ref())
    {
        vips.entry(address.value.ip()).or_insert(address.span.start);
    }
    for address in draft
        .pools
        .iter()
        .flat_map(|pool| &pool.backends)
        .filter_map(|backend| backend.address.as_ref())
    {
        if let Some(vip) = vips.get(&address.value.ip()) {
            let message = format!(
                "backend {} has the address of the service on line {}",
                address.value,
                report.line(*vip)
            );
            report.error(
                &address.span,
                message,
                "a VIP and a backend need different addresses",
            );
        }
    }
}

/// In mode `nat` the client's address and port reach the backend, so two services with a backend in common give one
/// client's connections from one port the same 5-tuple there.
fn shared_backends(draft: &Draft, report: &mut Report<'_>) {
    let pools: HashMap<&str, &PoolDraft> = draft
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool)))
        .collect();
    let mut first: HashMap<(u8, SocketAddr), &str> = HashMap::new();
    let mut first_of_pool: HashMap<(u8, &str), &str> = HashMap::new();
    for service in &draft.services {
        let (Some(name), Some(protocol), Some(reference)) =
            (&service.name, service.protocol, &service.pool)
        else {
            continue;
        };
        let protocol = protocol as u8;
        let addresses = || {
            let backends = pools
                .get(reference.value.as_str())
                .map_or(&[][..], |pool| &pool.backends);
            backends
                .iter()
                .filter_map(|backend| Some(backend.address.as_ref()?.value))
        };
        // By the earlier service: one of the backends, and how many there are.
        let mut shared: BTreeMap<&str, (SocketAddr, usize)> = BTreeMap::new();
        match first_of_pool.entry((protocol, &reference.value)) {
            // Thousands of services may name one pool: its backends are gone through once.
            Entry::Occupied(earlier) => {
                shared.extend(
                    addresses()
                        .next()
                        .map(|address| (*earlier.get(), (address, addresses().count()))),
                );
            }
            Entry::Vacant(entry) => {
                entry.insert(&name.value);
                for address in addresses() {
                    let earlier = *first.entry((protocol, address)).or_insert(&name.value);
                    if earlier != name.value {
                        shared.entry(earlier).or_insert((address, 0)).1 += 1;
                    }
                }
            }
        }
        for (earlier, (address, count)) in shared {
            let more = if count > 1 {
                format!(" and {} more", count - 1)
            } else {
                String::new()
            };
            report.warning(
                &reference.span,
                format!(
                    "services \"{earlier}\" and \"{}\" share the backend {address}{more}",
                    name.value
                ),
                "in mode \"nat\" a client that uses one port for both collides with itself there; \
                 give each service its own backend port",
            );
        }
    }
}

fn limits(draft: &Draft, report: &mut Report<'_>) {
    if let Some(beyond) = draft
        .services
        .get(MAX_SERVICES)
        .and_then(|service| service.name.as_ref())
    {
        let message = format!("{} services are too many", draft.services.len());
        report.error(&beyond.span, message, format!("use at most {MAX_SERVICES}"));
    }
    let mut distinct = HashSet::new();
    let addresses = draft
        .pools
        .iter()
        .flat_map(|pool| &pool.backends)
        .filter_map(|backend| backend.address.as_ref());
    for (members, address) in addresses.enumerate() {
        let full = distinct.len() == MAX_BACKENDS;
        if distinct.insert(address.value) && full {
            let message = format!("there are more than {MAX_BACKENDS} backends");
            report.error(&address.span, message, "use fewer");
            return;
        }
        if members == MAX_MEMBERS {
            let message = format!("the pools together name more than {MAX_MEMBERS} backends");
            report.error(&address.span, message, "let services share a pool");
            return;
        }
    }
    pairs(draft, report);
}

fn pairs(draft: &Draft, report: &mut Report<'_>) {
    let sizes: HashMap<&str, usize> = draft
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.as_ref()?.value.as_str(), pool.backends.len())))
        .collect();
    let mut pairs = 0_usize;
    for service in &draft.services {
        let (Some(name), Some(pool)) = (&service.name, &service.pool) else {
            continue;
        };
        pairs += sizes.get(pool.value.as_str()).copied().unwrap_or(0);
        if pairs > MAX_PAIRS {
            report.error(
                &name.span,
                format!("the services up to this one have more than {MAX_PAIRS} backends, counted in each"),
                "let fewer services share large pools, or give them smaller ones",
            );
            return;
        }
    }
}
