//! The order of the changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use lb_common::abi::{
    BackendId, BackendRow, ConfigRow, LAYOUT_VERSION, MAX_BACKENDS, Protocol,
    word::{BackendState, Way},
};

use super::{
    Actual, Book, Change, Desired, Plan, Refusal, Tables,
    tables::{backend_address, filter_places},
};

/// Gives the changes that lead from `actual` to `desired`, none where they are equal.
///
/// Additions come first and from the bottom up, removals last and from the top down:
/// 1. rows of interfaces, and the configuration that makes them count;
/// 2. backends that may no longer take new flows stop, whatever slots still name them;
/// 3. the filter gains its bits;
/// 4. backends with their ways, then slots, then services, then the keys that lead packets to them;
/// 5. keys of removed services go, then their slots; their rows and those of removed backends stay and rest;
/// 6. rows that have rested are cleared;
/// 7. interfaces, configuration and filter lose what nothing needs any more.
#[must_use]
pub fn plan(desired: &Desired, actual: &Actual, now: Instant) -> Plan {
    let mut planner = Planner {
        desired,
        before: &actual.tables,
        tables: actual.tables.clone(),
        book: actual.book.clone(),
        changes: Vec::new(),
        refused: Vec::new(),
        now,
    };
    planner.raise_interfaces();
    planner.configure(true);
    let ids = planner.backend_ids();
    planner.stop_accepting(&ids);
    planner.widen_filter();
    planner.learn_neighbours();
    planner.raise_backends(&ids);
    let services = planner.service_ids();
    planner.raise_services(&services, &ids);
    planner.raise_keys(&services);
    planner.lower_keys(&services);
    planner.lower_services(&services);
    planner.lower_backends(&ids);
    planner.lower_interfaces();
    planner.configure(false);
    planner.narrow_filter();
    Plan {
        changes: planner.changes,
        book: planner.book,
        refused: planner.refused,
    }
}

/// A plan in the making: `tables` is what the maps will hold after `changes`.
pub(super) struct Planner<'a> {
    pub(super) desired: &'a Desired,
    pub(super) before: &'a Tables,
    pub(super) tables: Tables,
    pub(super) book: Book,
    pub(super) changes: Vec<Change>,
    pub(super) refused: Vec<Refusal>,
    pub(super) now: Instant,
}

/// Rows of the backends that are wanted, new ones among them.
pub(super) type BackendIds = BTreeMap<SocketAddr, BackendId>;

impl Planner<'_> {
    /// Notes a change and goes on from its result.
    pub(super) fn emit(&mut self, change: Change) {
        self.tables.apply(&change);
        self.changes.push(change);
    }

    /// Writes the configuration; while `rising` the number of interfaces does not shrink.
    fn configure(&mut self, rising: bool) {
        let highest = self
            .tables
            .interfaces
            .keys()
            .next_back()
            .map_or(0, |slot| u32::from(slot.get()));
        let before = if rising {
            self.tables.config.interfaces
        } else {
            0
        };
        let row = ConfigRow {
            layout_version: LAYOUT_VERSION,
            ticks_per_second: self.desired.ticks_per_second,
            flags: if self.desired.host_forwards {
                ConfigRow::HOST_FORWARDS
            } else {
                0
            },
            interfaces: highest.max(before),
            flow_seed: self.desired.flow_seed,
            ..self.tables.config
        };
        if row != self.tables.config {
            self.emit(Change::Config(row));
        }
    }

    /// Finds the row of every wanted backend: the one it has, or has left and not yet lost, or a free one.
    fn backend_ids(&mut self) -> BackendIds {
        let mut ids = BackendIds::new();
        let mut taken = BTreeSet::new();
        for (id, address, _) in self.tables.tenants() {
            taken.insert(id);
            if self.desired.backends.contains(&address) {
                ids.entry(address).or_insert(id);
            }
        }
        let mut free = (1..MAX_BACKENDS)
            .filter_map(|row| BackendId::new(u16::try_from(row).ok()?))
            .filter(|id| !taken.contains(id));
        for address in &self.desired.backends {
            if ids.contains_key(address) {
                continue;
            }
            match free.next() {
                Some(id) => {
                    ids.insert(*address, id);
                }
                None => self.refused.push(Refusal::NoBackendId(*address)),
            }
        }
        ids
    }

    /// Takes back the permission of every row whose tenant may not take new flows.
    fn stop_accepting(&mut self, ids: &BackendIds) {
        let accepting = self.accepting(ids);
        let stopping: Vec<_> = self
            .tables
            .tenants()
            .filter(|(id, _, state)| {
                state.flags & BackendState::ACCEPTS != 0 && !accepting.contains(id)
            })
            .map(|(id, _, state)| {
                (
                    id,
                    BackendState {
                        flags: state.flags & !BackendState::ACCEPTS,
                        ..state
                    },
                )
            })
            .collect();
        for (id, state) in stopping {
            self.emit(Change::BackendState { id, state });
        }
    }

    /// Rows whose tenants some service may send new flows to.
    fn accepting(&self, ids: &BackendIds) -> BTreeSet<BackendId> {
        // By pool: thousands of services may share one.
        let used: BTreeSet<_> = self
            .desired
            .services
            .values()
            .map(|service| &service.pool)
            .collect();
        let rotations = used
            .into_iter()
            .filter_map(|pool| self.desired.pools.get(pool));
        rotations
            .flatten()
            .filter_map(|address| ids.get(address).copied())
            .collect()
    }

    /// Brings every row with a tenant up to date and moves new tenants in.
    fn raise_backends(&mut self, ids: &BackendIds) {
        let accepting = self.accepting(ids);
        let flags = |id| {
            let accepts = if accepting.contains(id) {
                BackendState::ACCEPTS
            } else {
                0
            };
            BackendState::IN_USE | accepts
        };
        let tenants: BTreeMap<_, _> = self
            .tables
            .tenants()
            .filter_map(|(id, ..)| Some((id, *self.tables.backends.get(&id)?)))
            .collect();
        for (id, row) in &tenants {
            let way = self.way_to(backend_address(row).ip(), row.way());
            // Before the state, which may let new flows in.
            if way != row.way() {
                self.emit(Change::BackendWay { id: *id, way });
            }
            let state = row.state();
            let wanted = BackendState {
                flags: flags(id),
                ..state
            };
            if wanted != state {
                self.emit(Change::BackendState {
                    id: *id,
                    state: wanted,
                });
            }
        }
        for (address, id) in ids {
            if tenants.contains_key(id) {
                continue;
            }
            let last = self
                .tables
                .backends
                .get(id)
                .map(BackendRow::state)
                .unwrap_or_default();
            if last.generation != 0 {
                self.emit(Change::ClearBackendCounters(*id));
            }
            let state = BackendState {
                flags: flags(id),
                generation: last.generation.wrapping_add(1),
            };
            self.emit(Change::Backend {
                id: *id,
                address: *address,
                way: self.way_to(address.ip(), Way::default()),
                state,
            });
        }
    }

    /// Gives up the rows of removed backends that have rested; all but their permissions stays for the next tenant to
    /// write over, the generation for it to go on from.
    fn lower_backends(&mut self, ids: &BackendIds) {
        let living: BTreeSet<_> = ids.values().copied().collect();
        let retired = self
            .tables
            .tenants()
            .map(|(id, ..)| id)
            .filter(|id| !living.contains(id))
            .collect();
        for id in self.book.rest_backends(&retired, self.now) {
            let row = self.tables.backends.get(&id);
            let state = BackendState {
                flags: 0,
                ..row.map(BackendRow::state).unwrap_or_default()
            };
            self.emit(Change::BackendState { id, state });
        }
    }

    /// Places of the filter for packets that may be ours: to VIPs and from backends, removed ones that still hold flows
    /// among them.
    fn filtered(&self) -> Vec<(u32, u64)> {
        let owners = self.tables.owners().filter_map(|(_, service, _)| service);
        let vips = owners.map(|service| (service.address, service.protocol));
        let backends = self.tables.tenants().map(|(_, address, _)| address);
        places(vips, backends)
    }

    fn widen_filter(&mut self) {
        let services = self.desired.services.keys();
        let vips = services.map(|service| (service.address, service.protocol));
        let mut wanted = places(vips, self.desired.backends.iter().copied());
        wanted.extend(self.filtered());
        let mut words = self.tables.filter.clone();
        set_bits(&mut words, wanted);
        self.emit_filter(&words);
    }

    fn narrow_filter(&mut self) {
        let mut words = vec![0; self.tables.filter.len()];
        set_bits(&mut words, self.filtered());
        self.emit_filter(&words);
    }

    fn emit_filter(&mut self, words: &[u64]) {
        for (index, bits) in (0_u32..).zip(words) {
            if self.tables.filter.get(index as usize) != Some(bits) {
                self.emit(Change::Filter { index, bits: *bits });
            }
        }
    }
}

/// A backend's row does not say which protocols its services speak.
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn places(
    vips: impl Iterator<Item = (SocketAddr, Protocol)>,
    backends: impl Iterator<Item = SocketAddr>,
) -> Vec<(u32, u64)> {
    let vips = vips.flat_map(|(vip, protocol)| filter_places(vip, &[protocol]).collect::<Vec<_>>());
    vips.chain(backends.flat_map(|backend| filter_places(backend, &PROTOCOLS)))
        .collect()
}

fn set_bits(words: &mut [u64], places: impl IntoIterator<Item = (u32, u64)>) {
    for (index, bit) in places {
        if let Some(word) = words.get_mut(index as usize) {
            *word |= bit;
        }
    }
}
