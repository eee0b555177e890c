//! Rows of `NEXT_HOPS`.
//!
//! A row belongs to one neighbour on one interface, so its word may change in place: all backends behind it move
//! together. A backend whose route leads elsewhere gets another row by its own word. The maps don't say which
//! neighbour a row belongs to; after a start that is worked out from the backends that name it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::abi::{
    MAX_NEXT_HOPS, NextHopId, NextHopRow,
    word::{BackendState, Way},
};

use super::{
    Change, Desired, Hop, HopKey, Refusal,
    order::{BackendIds, Planner},
};

impl<'a> Planner<'a> {
    /// Gives every neighbour that is known its row, and the row its way.
    pub(super) fn raise_hops(&mut self, ids: &BackendIds) {
        let ways = self.wanted_ways(ids);
        self.recognise_hops(&ways);
        let free: Vec<_> = self.free_hops().take(ways.len()).collect();
        let mut free = free.into_iter();
        for (key, way) in ways {
            let known = self.book.hops.get(&key).copied();
            let Some(id) = known.or_else(|| free.next()) else {
                self.refused.push(Refusal::NoNextHopId(key));
                continue;
            };
            self.book.hops.insert(key, id);
            if self.way(id) != way {
                self.emit(Change::NextHop { id, way });
            }
        }
    }

    /// The row that a backend of this address should name; `current` where nothing better is known.
    pub(super) fn hop_of(&self, address: IpAddr, current: u32) -> u32 {
        match self.desired.hops.get(&address) {
            Some(Hop::Known { key, .. } | Hop::Keep { key: Some(key) }) => {
                self.book.hops.get(key).map_or(current, |id| id.get())
            }
            Some(Hop::Keep { key: None }) | None => current,
            Some(Hop::Unreachable) => 0,
        }
    }

    /// Clears rows that no backend names any more, once they have rested.
    pub(super) fn lower_hops(&mut self) {
        let named: BTreeSet<_> = self
            .tables
            .tenants()
            .filter_map(|(_, _, state)| NextHopId::new(state.next_hop))
            .collect();
        self.book.hops.retain(|_, id| named.contains(id));
        let retired = self
            .tables
            .next_hops
            .keys()
            .filter(|id| !named.contains(id))
            .copied()
            .collect();
        for id in self.book.rest_hops(&retired, self.now) {
            self.emit(Change::NextHop {
                id,
                way: Way::default(),
            });
        }
    }

    /// The way of every neighbour that is known and leads to a backend with a row.
    fn wanted_ways(&self, ids: &BackendIds) -> BTreeMap<HopKey, Way> {
        let desired: &'a Desired = self.desired;
        let removed = self.tables.tenants().map(|(_, address, _)| address.ip());
        let addresses: BTreeSet<_> = ids
            .keys()
            .map(std::net::SocketAddr::ip)
            .chain(removed)
            .collect();
        let mut ways = BTreeMap::new();
        for address in addresses {
            let Some(Hop::Known { key, mac }) = desired.hops.get(&address) else {
                continue;
            };
            let Some(slot) = self.book.interfaces.get(&key.interface) else {
                continue;
            };
            let way = Way {
                mac: *mac,
                interface: slot.get(),
                flags: Way::RESOLVED,
            };
            ways.entry(key.clone()).or_insert(way);
        }
        ways
    }

    /// Works out which rows the neighbours own that the book does not know: a row is a neighbour's where all its
    /// backends are behind that neighbour, or where it already holds the neighbour's way.
    fn recognise_hops(&mut self, ways: &BTreeMap<HopKey, Way>) {
        let desired: &'a Desired = self.desired;
        let mut claims: BTreeMap<NextHopId, BTreeSet<Option<&HopKey>>> = BTreeMap::new();
        for (_, address, BackendState { next_hop, .. }) in self.tables.tenants() {
            let Some(id) = NextHopId::new(next_hop) else {
                continue;
            };
            let key = match desired.hops.get(&address.ip()) {
                Some(Hop::Known { key, .. } | Hop::Keep { key: Some(key) }) => Some(key),
                Some(Hop::Keep { key: None } | Hop::Unreachable) | None => None,
            };
            claims.entry(id).or_default().insert(key);
        }
        let mut owned: BTreeSet<_> = self.book.hops.values().copied().collect();
        for (id, keys) in claims {
            let sole = keys.len() == 1;
            let key = keys.into_iter().flatten().find(|key| {
                !self.book.hops.contains_key(*key)
                    && (sole || ways.get(*key) == Some(&self.way(id)))
            });
            if let Some(key) = key
                && owned.insert(id)
            {
                self.book.hops.insert(key.clone(), id);
            }
        }
    }

    /// Rows that are empty, owned by no neighbour, named by no backend and not resting.
    fn free_hops(&self) -> impl Iterator<Item = NextHopId> {
        let owned = self.book.hops.values().copied();
        let named = self
            .tables
            .tenants()
            .filter_map(|(_, _, state)| NextHopId::new(state.next_hop));
        let taken: BTreeSet<_> = owned
            .chain(named)
            .chain(self.tables.next_hops.keys().copied())
            .collect();
        (1..MAX_NEXT_HOPS)
            .filter_map(NextHopId::new)
            .filter(move |id| !taken.contains(id) && !self.book.hop_rests(*id))
    }

    fn way(&self, id: NextHopId) -> Way {
        self.tables
            .next_hops
            .get(&id)
            .map(NextHopRow::way)
            .unwrap_or_default()
    }
}
