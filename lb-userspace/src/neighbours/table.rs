//! What is known of links, addresses, neighbours and routes, and what follows from it. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{Link, Observation, Reason, Resolution, Watch, netlink::Event};
use crate::{
    addresses::PROTOCOL,
    plan::{Hop, HopKey},
};

/// A link of the host, of the configuration or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkRow {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    /// Has Ethernet addresses.
    pub(crate) ethernet: bool,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
}

/// An IPv4 address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRow {
    pub(crate) ifindex: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    /// `IFA_PROTO`; 0 where the kernel says nothing.
    pub(crate) protocol: u8,
}

impl AddressRow {
    /// The kernel's key of an address.
    fn is(&self, other: &Self) -> bool {
        (self.ifindex, self.address, self.prefix) == (other.ifindex, other.address, other.prefix)
    }
}

/// Interface and address of a neighbour.
pub(crate) type NeighbourKey = (u32, IpAddr);

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeighbourRow {
    pub(crate) key: NeighbourKey,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) usability: Usability,
}

/// What the kernel's state of a neighbour means for its MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Usability {
    /// Valid for good: `PERMANENT`, `NOARP`. Must not be probed: that would make it an ordinary entry.
    Fixed,
    /// Valid and confirmed: `REACHABLE`.
    Fresh,
    /// Valid, and being confirmed: `DELAY`, `PROBE`.
    Confirming,
    /// Valid, and nobody confirms it: `STALE`.
    Stale,
    /// Not valid: `INCOMPLETE`, `FAILED`, no entry.
    #[default]
    None,
}

/// What the kernel does with packets to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteAnswer {
    /// Sends them out of this interface, to the gateway where there is one, from this address of its own.
    Unicast {
        ifindex: u32,
        gateway: Option<IpAddr>,
        source: Option<IpAddr>,
    },
    /// Takes them itself.
    Local,
    /// Sends them to many.
    Many,
    /// Refuses; why.
    None(&'static str),
}

/// The host as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) host_forwards: bool,
    pub(crate) links: BTreeMap<u32, LinkRow>,
    /// How often a link of that index went away.
    pub(crate) gone: BTreeMap<u32, u32>,
    /// In the kernel's order.
    pub(crate) addresses: Vec<AddressRow>,
    pub(crate) neighbours: BTreeMap<NeighbourKey, NeighbourRow>,
    pub(crate) routes: BTreeMap<IpAddr, RouteAnswer>,
}

/// What an event makes uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing more than the table.
    Noted,
    /// Routes may lead elsewhere.
    Routes,
    /// Everything.
    All,
}

impl Table {
    /// Notes an event.
    pub(crate) fn note(&mut self, event: Event) -> Effect {
        match event {
            Event::Link(row) => {
                let before = self.links.insert(row.ifindex, row.clone());
                if before.is_some_and(|before| before == row) {
                    Effect::Noted
                } else {
                    Effect::Routes
                }
            }
            Event::LinkGone(ifindex) => {
                self.links.remove(&ifindex);
                *self.gone.entry(ifindex).or_default() += 1;
                self.addresses.retain(|address| address.ifindex != ifindex);
                self.neighbours.retain(|(of, _), _| *of != ifindex);
                Effect::Routes
            }
            Event::Address(row) => {
                match self.addresses.iter_mut().find(|known| known.is(&row)) {
                    Some(known) => *known = row,
                    None => self.addresses.push(row),
                }
                Effect::Routes
            }
            Event::AddressGone(row) => {
                self.addresses.retain(|known| !known.is(&row));
                Effect::Routes
            }
            Event::Neighbour(row) => {
                self.neighbours.insert(row.key, row);
                Effect::Noted
            }
            Event::NeighbourGone(key) => {
                self.neighbours.remove(&key);
                Effect::Noted
            }
            Event::Routes => Effect::Routes,
            Event::Lost => Effect::All,
        }
    }

    /// Forgets the routes to what is no longer watched.
    pub(crate) fn forget_others(&mut self, watch: &Watch) {
        self.routes
            .retain(|destination, _| watch.destinations.contains(destination));
    }

    /// The observation that follows.
    pub(crate) fn observe(&self, watch: &Watch) -> Observation {
        let links = watch
            .interfaces
            .iter()
            .map(|name| (name.clone(), self.link(name)))
            .collect();
        let ways = watch
            .destinations
            .iter()
            .map(|to| (*to, self.resolve(*to, watch)))
            .collect();
        Observation {
            host_forwards: self.host_forwards,
            links,
            ways,
        }
    }

    /// The neighbours on the ways to the destinations of `watch`, through its interfaces.
    pub(crate) fn wanted(&self, watch: &Watch) -> impl Iterator<Item = (NeighbourKey, Usability)> {
        watch.destinations.iter().filter_map(|destination| {
            let key = self.neighbour_on_the_way(*destination)?;
            let link = self.links.get(&key.0)?;
            let probed = link.ethernet && link.up && watch.interfaces.contains(&link.name);
            probed.then(|| {
                (
                    key,
                    self.neighbours
                        .get(&key)
                        .map(|row| row.usability)
                        .unwrap_or_default(),
                )
            })
        })
    }

    /// The neighbour that packets to `destination` go to.
    pub(crate) fn neighbour_on_the_way(&self, destination: IpAddr) -> Option<NeighbourKey> {
        match self.routes.get(&destination)? {
            RouteAnswer::Unicast {
                ifindex, gateway, ..
            } => Some((*ifindex, gateway.unwrap_or(destination))),
            RouteAnswer::Local | RouteAnswer::Many | RouteAnswer::None(_) => None,
        }
    }

    fn link(&self, name: &str) -> Option<Link> {
        let row = self.links.values().find(|row| row.name == name)?;
        let ipv4 = self
            .addresses
            .iter()
            .find(|row_| row_.ifindex == row.ifindex && row_.protocol != PROTOCOL);
        Some(Link {
            ifindex: row.ifindex,
            made: self.gone.get(&row.ifindex).copied().unwrap_or(0),
            mac: row.mac,
            up: row.up,
            ipv4: ipv4.map(|address| address.address),
            mtu: row.mtu,
        })
    }

    fn resolve(&self, address: IpAddr, watch: &Watch) -> Resolution {
        let unreachable = |reason| Resolution {
            hop: Hop::Unreachable,
            source: None,
            reason: Some(reason),
        };
        let (ifindex, gateway, source) = match self.routes.get(&address) {
            Some(RouteAnswer::Unicast {
                ifindex,
                gateway,
                source,
            }) => (ifindex, gateway, *source),
            Some(RouteAnswer::Local) => return unreachable(Reason::Local(address)),
            Some(RouteAnswer::Many) => return unreachable(Reason::NotUnicast(address)),
            Some(RouteAnswer::None(answer)) => {
                return unreachable(Reason::NoRoute { address, answer });
            }
            None => return keep(address),
        };
        // The link's own event may come after the route's.
        let Some(link) = self.links.get(ifindex) else {
            return keep(address);
        };
        if !watch.interfaces.contains(&link.name) {
            return unreachable(Reason::OtherInterface {
                address,
                interface: link.name.clone(),
            });
        }
        let neighbour = gateway.unwrap_or(address);
        let key = HopKey {
            interface: link.name.clone(),
            address: neighbour,
        };
        if !link.ethernet {
            return unreachable(Reason::NotEthernet {
                address,
                interface: link.name.clone(),
            });
        }
        let row = self.neighbours.get(&(*ifindex, neighbour));
        match row
            .filter(|row| row.usability != Usability::None)
            .and_then(|row| row.mac)
        {
            Some(mac) => Resolution {
                hop: Hop::Known { key, mac },
                source,
                reason: None,
            },
            None => Resolution {
                hop: Hop::Keep {
                    key: Some(key.clone()),
                },
                source,
                reason: Some(Reason::Unanswered {
                    address,
                    neighbour: key,
                }),
            },
        }
    }
}

fn keep(address: IpAddr) -> Resolution {
    Resolution {
        hop: Hop::Keep { key: None },
        source: None,
        reason: Some(Reason::NotAsked(address)),
    }
}

#[cfg(test)]
mod tests;
