//! The ways towards backends. Each backend's row has its own: a neighbour's new MAC address is written into the rows of all
//! backends behind it, a word each.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::abi::word::Way;

use super::{Hop, HopKey, order::Planner};

impl Planner<'_> {
    /// Notes the neighbours that are known, for as long as a way leads through them.
    pub(super) fn learn_neighbours(&mut self) {
        let hops = &self.desired.hops;
        let named: BTreeSet<_> = hops.values().filter_map(neighbour).collect();
        self.book.neighbours.retain(|key, _| named.contains(key));
        for hop in hops.values() {
            if let Hop::Known { key, mac } = hop
                && self.book.neighbours.get(key) != Some(mac)
            {
                self.book.neighbours.insert(key.clone(), *mac);
            }
        }
    }

    /// The way that a backend of this address should have; `current` where nothing better is known.
    pub(super) fn way_to(&self, address: IpAddr, current: Way) -> Way {
        let way = |key: &HopKey| {
            Some(Way {
                mac: *self.book.neighbours.get(key)?,
                interface: self.book.interfaces.get(&key.interface)?.get(),
                flags: Way::RESOLVED,
            })
        };
        match self.desired.hops.get(&address) {
            Some(Hop::Unreachable) => Way::default(),
            hop => hop.and_then(neighbour).and_then(way).unwrap_or(current),
        }
    }
}

/// The neighbour that a way leads through, where the route is known.
fn neighbour(hop: &Hop) -> Option<&HopKey> {
    match hop {
        Hop::Known { key, .. } | Hop::Keep { key: Some(key) } => Some(key),
        Hop::Keep { key: None } | Hop::Unreachable => None,
    }
}
