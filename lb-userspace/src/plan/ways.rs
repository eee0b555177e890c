//! The ways towards backends. Each backend's row has its own: a neighbour's new MAC address is written into the rows of all
//! backends behind it, a word each. A way names the row of an interface: it goes before that row does.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::abi::{InterfaceSlot, word::Way};

use super::{Hop, HopKey, order::Planner};

impl Planner<'_> {
    /// Notes the neighbours that are known, for as long as a way leads through them.
    pub(super) fn learn_neighbours(&mut self) {
        let hops = &self.desired.hops;
        let named: BTreeSet<_> = hops.values().filter_map(Hop::neighbour).collect();
        self.book.neighbours.retain(|key, _| named.contains(key));
        for hop in hops.values() {
            if let Hop::Known { key, mac } = hop
                && self.book.neighbours.get(key) != Some(mac)
            {
                self.book.neighbours.insert(key.clone(), *mac);
            }
        }
    }

    /// The way that a backend of this address should have; `current` where nothing better is known. None through an
    /// interface that was removed: its row will be another's.
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
            hop => {
                let way = hop
                    .and_then(Hop::neighbour)
                    .and_then(way)
                    .unwrap_or(current);
                if self.is_configured(way.interface) {
                    way
                } else {
                    Way::default()
                }
            }
        }
    }

    /// Rows of `INTERFACES` that the way of some backend names.
    pub(super) fn rows_on_ways(&self) -> BTreeSet<InterfaceSlot> {
        let tenants = self.tables.tenants();
        let rows = tenants.filter_map(|(id, ..)| self.tables.backends.get(&id));
        rows.filter_map(|row| InterfaceSlot::new(row.way().interface))
            .collect()
    }

    /// Whether a row of `INTERFACES` is that of an interface of the configuration.
    fn is_configured(&self, row: u8) -> bool {
        let mut names = self.desired.interfaces.keys();
        names.any(|name| {
            let slot = self.book.interfaces.get(name);
            slot.is_some_and(|slot| slot.get() == row)
        })
    }
}
