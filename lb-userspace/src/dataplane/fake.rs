//! A data plane of values: for tests of the core, and to see what a configuration would do.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_common::abi::{FlowCounters, MAX_TABLE_EVENTS, MAX_VERDICTS};

use super::{
    AttachError, Attached, Dataplane, Events, InForce, InForceMode, Link, ProgramInForce, Readings,
    ReloadError, TableError, Target,
};
use crate::{
    model::{AttachMode, DataPlane},
    observe::flows::FlowCensus,
    plan::{Change, Tables},
};

/// What a test sees and sets.
#[derive(Debug, Default)]
pub struct State {
    /// The maps.
    pub tables: Tables,
    /// Every change that was applied.
    pub changes: Vec<Change>,
    /// Links: interface, index, and how often its program was replaced.
    pub links: BTreeMap<String, (u32, u32)>,
    /// What the flow table holds.
    pub census: FlowCensus,
    /// Counters by row of `SERVICES` and of `BACKENDS`, and by verdict.
    pub counters: (
        BTreeMap<u32, FlowCounters>,
        BTreeMap<u32, FlowCounters>,
        BTreeMap<u32, u64>,
    ),
    /// Frames that were sent, with their interface.
    pub sent: Vec<(u32, Vec<u8>)>,
    /// `jiffies64`.
    pub ticks: u64,
    /// So many changes succeed before one fails; `None`: all do.
    pub changes_until_failure: Option<usize>,
    /// Changes that fail.
    pub failing: Option<fn(&Change) -> bool>,
    /// Changes that take the whole data plane along.
    pub panicking: Option<fn(&Change) -> bool>,
    /// What the program was last loaded anew with.
    pub settings: Option<DataPlane>,
    /// Interfaces that refuse to be attached to.
    pub refusing: Vec<String>,
    /// Interfaces that refuse native mode.
    pub generic_only: Vec<String>,
    /// Interfaces whose link is in generic mode.
    pub generic: BTreeSet<String>,
    /// Interfaces whose link runs another program.
    pub outdated: BTreeSet<String>,
    /// How often the flow table was counted.
    pub censuses: u64,
    /// It was there before the agent.
    pub adopted: bool,
    /// It was taken down.
    pub removed: bool,
}

/// A data plane of values. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// One that an earlier agent left with these maps.
    #[must_use]
    pub fn adopted(tables: Tables) -> Self {
        Self(Arc::new(Mutex::new(State {
            tables,
            adopted: true,
            ..State::default()
        })))
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dataplane for Fake {
    fn adopted(&self) -> bool {
        self.state().adopted
    }

    fn ticks_per_second(&self) -> u32 {
        250
    }

    fn flow_seed(&self) -> u64 {
        0x5eed
    }

    fn apply(&mut self, change: &Change) -> Result<(), TableError> {
        let mut state = self.state();
        let error = TableError {
            map: "FAKE",
            action: "write",
            cause: io::Error::other("as the test wants"),
        };
        assert!(
            !state.panicking.is_some_and(|panics| panics(change)),
            "as the test wants"
        );
        if state.failing.is_some_and(|fails| fails(change)) {
            return Err(error);
        }
        if let Some(left) = &mut state.changes_until_failure {
            if *left == 0 {
                return Err(error);
            }
            *left -= 1;
        }
        state.tables.apply(change);
        state.changes.push(change.clone());
        Ok(())
    }

    fn attach(&mut self, target: &Target) -> Result<Attached, AttachError> {
        let mut state = self.state();
        if state.refusing.contains(&target.name) {
            return Err(AttachError::Missing {
                interface: target.name.clone(),
            });
        }
        let link = state
            .links
            .get(&target.name)
            .copied()
            .filter(|(ifindex, _)| *ifindex == target.ifindex);
        let was_generic = state.generic.contains(&target.name);
        let wants_generic = match target.mode {
            AttachMode::Generic => true,
            AttachMode::Native => false,
            AttachMode::Auto if link.is_some() => was_generic,
            AttachMode::Auto => state.generic_only.contains(&target.name),
        };
        if !wants_generic && state.generic_only.contains(&target.name) {
            let refusal = AttachError::Refused {
                interface: target.name.clone(),
                mode: "native",
                cause: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            };
            return Err(match link {
                Some(_) => AttachError::Kept {
                    mode: "generic",
                    refusal: Box::new(refusal),
                },
                None => refusal,
            });
        }
        let link = link.filter(|_| wants_generic == was_generic);
        let replaced = link.map_or(0, |(_, replaced)| replaced + 1);
        state
            .links
            .insert(target.name.clone(), (target.ifindex, replaced));
        if wants_generic {
            state.generic.insert(target.name.clone());
        } else {
            state.generic.remove(&target.name);
        }
        state.outdated.remove(&target.name);
        let native = !wants_generic;
        Ok(Attached {
            ifindex: target.ifindex,
            native,
            fallback: None,
            adopted: link.is_some(),
        })
    }

    fn detach(&mut self, interface: &str) -> Result<bool, AttachError> {
        Ok(self.state().links.remove(interface).is_some())
    }

    fn links(&mut self) -> Result<Vec<Link>, AttachError> {
        let state = self.state();
        let link = |(interface, (ifindex, _)): (&String, &(u32, u32))| Link {
            interface: interface.clone(),
            ifindex: *ifindex,
            current: !state.outdated.contains(interface),
        };
        Ok(state.links.iter().map(link).collect())
    }

    fn reload(&mut self, settings: DataPlane) -> Result<(), ReloadError> {
        let mut state = self.state();
        state.settings = Some(settings);
        for (_, replaced) in state.links.values_mut() {
            *replaced += 1;
        }
        Ok(())
    }

    fn readings(&self) -> Arc<dyn Readings> {
        Arc::new(self.clone())
    }

    fn events(&mut self) -> io::Result<Option<Events>> {
        Ok(None)
    }

    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        self.state().sent.push((ifindex, frame.to_vec()));
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Vec<String>> {
        let mut state = self.state();
        state.removed = true;
        state.links.clear();
        state.tables = Tables::default();
        Ok(())
    }
}

impl Readings for Fake {
    fn tables(&self) -> Result<Tables, TableError> {
        Ok(self.state().tables.clone())
    }

    fn last_rows(&self) -> (u32, u32) {
        let state = self.state();
        let service = state.tables.owners().map(|(id, ..)| id.get()).max();
        let backend = state
            .tables
            .tenants()
            .map(|(id, ..)| u32::from(id.get()))
            .max();
        (service.unwrap_or(0), backend.unwrap_or(0))
    }

    fn attached(&self, ifindex: u32) -> io::Result<Option<InForce>> {
        let state = self.state();
        let mut links = state.links.iter();
        let link = links.find(|(_, (index, _))| *index == ifindex);
        Ok(link.map(|(interface, _)| InForce {
            mode: if state.generic.contains(interface) {
                InForceMode::Generic
            } else {
                InForceMode::Native
            },
            program: if state.outdated.contains(interface) {
                2
            } else {
                1
            },
        }))
    }

    fn service(&self, row: u32) -> FlowCounters {
        let counters = &self.state().counters;
        counters.0.get(&row).copied().unwrap_or_default()
    }

    fn backend(&self, row: u32) -> FlowCounters {
        let counters = &self.state().counters;
        counters.1.get(&row).copied().unwrap_or_default()
    }

    fn verdicts(&self) -> Vec<u64> {
        let counters = &self.state().counters;
        (0..MAX_VERDICTS)
            .map(|row| counters.2.get(&row).copied().unwrap_or_default())
            .collect()
    }

    fn flow_capacity(&self) -> u64 {
        4_096
    }

    fn table_events(&self) -> Vec<u64> {
        vec![0; MAX_TABLE_EVENTS as usize]
    }

    fn expire(&self, _: u32) -> io::Result<u64> {
        Ok(0)
    }

    fn census(&self, _: u32) -> io::Result<FlowCensus> {
        let mut state = self.state();
        state.censuses += 1;
        Ok(state.census.clone())
    }

    fn ticks(&self) -> io::Result<u64> {
        Ok(self.state().ticks)
    }

    fn program(&self) -> io::Result<ProgramInForce> {
        Ok(ProgramInForce {
            id: 1,
            tag: 2,
            loaded: None,
            verified_instructions: 3,
        })
    }
}
