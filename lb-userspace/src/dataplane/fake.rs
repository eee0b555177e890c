//! A data plane of values: for tests of the core, and to see what a configuration would do.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use lb_common::abi::{FlowCounters, MAX_TABLE_EVENTS, MAX_VERDICTS};

use super::{
    AttachError, Attached, Dataplane, Events, Fresh, InForce, InForceMode, Link, Loader, Losses,
    PinsError, ProgramInForce, Readings, RedirectsError, ReloadError, RestoreError, TableError,
    Target,
};
use crate::{
    model::{AttachMode, DataPlane, DataPlaneLog},
    nic::Nic,
    observe::flows::FlowCensus,
    plan::{Change, Tables},
};

/// What a test sees and sets.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that a test sets or reads"
)]
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
    /// Of the program in the links.
    pub settings: Option<DataPlane>,
    /// A program is loaded only when something comes from here.
    pub load_gate: Option<mpsc::Receiver<()>>,
    /// What somebody else has taken.
    pub losses: Losses,
    /// The pins can't be made again: the bpffs is gone.
    pub no_bpffs: bool,
    /// Changes that are carried out and then said to have failed.
    pub half_failing: Option<fn(&Change) -> bool>,
    /// How often the program was to be attached.
    pub attempts: usize,
    /// Interfaces that refuse to be attached to.
    pub refusing: Vec<String>,
    /// Interfaces that refuse native mode.
    pub generic_only: Vec<String>,
    /// Interfaces whose link is in generic mode.
    pub generic: BTreeSet<String>,
    /// The interface that the kernel sends no redirects out of.
    pub quiet: Option<String>,
    /// Parameters of the kernel can't be written.
    pub read_only: bool,
    /// What interfaces are, by index.
    pub nics: BTreeMap<u32, Nic>,
    /// What their drivers count, by name of the interface.
    pub driver_counters: BTreeMap<String, BTreeMap<String, u64>>,
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
        match state.half_failing {
            Some(fails) if fails(change) => Err(error),
            _ => Ok(()),
        }
    }

    fn attach(&mut self, target: &Target) -> Result<Attached, AttachError> {
        let mut state = self.state();
        state.attempts += 1;
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
            AttachMode::Auto if link.is_some() && !target.anew => was_generic,
            AttachMode::Auto => state.generic_only.contains(&target.name),
        };
        let auto = target.mode == AttachMode::Auto;
        if !wants_generic && state.generic_only.contains(&target.name) {
            let refusal = AttachError::Refused {
                interface: target.name.clone(),
                mode: "native",
                cause: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                advice: Some("another mode".to_owned()),
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
        state.losses.links.retain(|lost| *lost != target.name);
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
            fallback: (auto && wants_generic).then(|| "as the test wants".to_owned()),
            adopted: link.is_some(),
        })
    }

    fn detach(&mut self, interface: &str) -> Result<bool, AttachError> {
        Ok(self.state().links.remove(interface).is_some())
    }

    fn quiet_redirects(&mut self, interface: Option<&str>) -> Result<bool, RedirectsError> {
        let mut state = self.state();
        if state.read_only && interface.is_some() {
            return Err(RedirectsError::Parameter {
                action: "write",
                path: "/proc/sys".into(),
                cause: io::Error::from_raw_os_error(libc::EROFS),
                command: "sysctl".to_owned(),
            });
        }
        let changed = state.quiet.as_deref() != interface;
        state.quiet = interface.map(str::to_owned);
        Ok(changed)
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

    fn loader(&self) -> Loader {
        let gate = self.state().load_gate.take();
        Box::new(move |settings| {
            if let Some(gate) = gate {
                // A gate that goes away is open.
                gate.iter().take(1).for_each(drop);
            }
            Ok(Fresh {
                settings,
                program: None,
            })
        })
    }

    fn replace(&mut self, fresh: Fresh) -> Result<Fresh, ReloadError> {
        let mut state = self.state();
        let before = state.settings.replace(fresh.settings);
        for (_, replaced) in state.links.values_mut() {
            *replaced += 1;
        }
        Ok(Fresh {
            settings: before.unwrap_or(DataPlane {
                log: DataPlaneLog::Off,
                flow_entries: 4_096,
            }),
            program: None,
        })
    }

    fn restore(&mut self) -> Result<(), RestoreError> {
        let mut state = self.state();
        if state.no_bpffs {
            return Err(PinsError::Missing("/run/bpf".into()).into());
        }
        state.losses.pins.clear();
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
        state.quiet = None;
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

    fn nic(&self, _: &str, ifindex: u32) -> io::Result<Nic> {
        Ok(self.state().nics.get(&ifindex).cloned().unwrap_or_default())
    }

    fn driver_counters(&self, interface: &str) -> io::Result<BTreeMap<String, u64>> {
        let state = self.state();
        let counters = state.driver_counters.get(interface);
        Ok(counters.cloned().unwrap_or_default())
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

    fn losses(&self) -> Losses {
        self.state().losses.clone()
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
