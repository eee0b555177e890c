//! The maps, the program and its links: the only writer of control maps.
//!
//! [`Dataplane`] is what the core asks for; [`Kernel`] is the real one, [`fake::Fake`] one for tests. It carries out
//! [`Change`]s and reads what is in force; what should be in force is decided by [`crate::plan`]. Its calls may wait
//! for the kernel, so the core makes them on a blocking thread.

mod attach;
mod clock;
mod control;
mod counters;
mod detach;
mod events;
pub mod fake;
mod held;
mod kernel;
mod layout;
mod maps;
mod open;
mod pins;
mod privilege;
mod program;
mod query;
mod readings;
mod reasons;
mod redirects;
mod rows;
mod shared;
mod syscall;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_common::abi::FlowCounters;

pub use attach::{AttachError, Attached, Target};
pub use clock::ClockError;
pub use counters::{CounterRows, cpus};
pub use detach::{DetachError, detach};
pub use events::Events;
pub use held::{Losses, RestoreError};
pub use kernel::{Kernel, Prepared, Undo};
pub use layout::Misfit;
pub use open::{OpenError, Place};
pub use pins::{Holder, PinsError};
pub use program::{Fresh, LoadError};
pub use query::{InForce, InForceMode};
pub use redirects::RedirectsError;

use crate::{
    model::DataPlane,
    nic::Nic,
    observe::flows::FlowCensus,
    plan::{Change, Tables},
};

/// A data plane: maps to write, a program to attach.
pub trait Dataplane: Send + 'static {
    /// Whether it was there before this agent.
    fn adopted(&self) -> bool;

    /// Ticks of `jiffies` a second.
    fn ticks_per_second(&self) -> u32;

    /// Secret of the flow table's hash, made once for each table.
    fn flow_seed(&self) -> u64;

    /// Carries out one change.
    ///
    /// # Errors
    /// The kernel refuses it; what was there before is still there.
    fn apply(&mut self, change: &Change) -> Result<(), TableError>;

    /// Makes the program run on an interface: in the link that is there, or in a new one.
    ///
    /// # Errors
    /// See [`AttachError`]; with [`AttachError::Kept`] it runs on in the mode it was in.
    fn attach(&mut self, target: &Target) -> Result<Attached, AttachError>;

    /// Takes the program off an interface; `false` where it was not there.
    ///
    /// # Errors
    /// See [`AttachError`].
    fn detach(&mut self, interface: &str) -> Result<bool, AttachError>;

    /// The links that are there.
    ///
    /// # Errors
    /// See [`AttachError`].
    fn links(&mut self) -> Result<Vec<Link>, AttachError>;

    /// Has the kernel send no ICMP redirects out of an interface, and as before out of any other; gives whether that
    /// changed anything.
    ///
    /// # Errors
    /// See [`RedirectsError`]; all is as it was before.
    fn quiet_redirects(&mut self, interface: Option<&str>) -> Result<bool, RedirectsError>;

    /// What loads another program beside the one in force.
    fn loader(&self) -> Loader;

    /// Puts a loaded program into every link; gives the one that was there, for the case that it is to be put back.
    ///
    /// # Errors
    /// A link can't be updated; the earlier program then stays in force.
    fn replace(&mut self, fresh: Fresh) -> Result<Fresh, ReloadError>;

    /// Makes the pins again that somebody has removed.
    ///
    /// # Errors
    /// See [`RestoreError`]; what runs goes on without them.
    fn restore(&mut self) -> Result<(), RestoreError>;

    /// What can be read from any thread.
    fn readings(&self) -> Arc<dyn Readings>;

    /// What the program tells; `None` the second time.
    ///
    /// # Errors
    /// The ring can't be mapped.
    fn events(&mut self) -> io::Result<Option<Events>>;

    /// Sends a frame out of an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()>;

    /// Takes everything down: links, maps, directories.
    ///
    /// # Errors
    /// What could not be removed, and why; the rest was.
    fn remove(&mut self) -> Result<(), Vec<String>>;
}

/// Loads a program with these load-time constants, away from whatever must go on: it takes as long as the kernel takes to verify
/// it, seconds perhaps.
pub type Loader = Box<dyn FnOnce(DataPlane) -> Result<Fresh, ReloadError> + Send>;

/// What the data plane counts and holds. Every call reads the maps in force.
pub trait Readings: Send + Sync + 'static {
    /// Reads the control maps.
    ///
    /// # Errors
    /// A map can't be read.
    fn tables(&self) -> Result<Tables, TableError>;

    /// The last rows of `SERVICES` and of `BACKENDS` that are in use; 0 where none is.
    fn last_rows(&self) -> (u32, u32);

    /// The XDP program on an interface, whosever it is; `None` where there is none.
    ///
    /// # Errors
    /// There is no such interface.
    fn attached(&self, ifindex: u32) -> io::Result<Option<InForce>>;

    /// What an interface is, and how its driver is set.
    ///
    /// # Errors
    /// There is no such interface.
    fn nic(&self, name: &str, ifindex: u32) -> io::Result<Nic>;

    /// What an interface's driver counts of XDP and of lost packets, by its own names.
    ///
    /// # Errors
    /// There is no such interface.
    fn driver_counters(&self, name: &str) -> io::Result<BTreeMap<String, u64>>;

    /// Counters of a row of services, over all CPUs.
    fn service(&self, row: u32) -> FlowCounters;

    /// Counters of a row of backends, over all CPUs.
    fn backend(&self, row: u32) -> FlowCounters;

    /// Packets by verdict, over all CPUs; see [`lb_common::verdict`].
    fn verdicts(&self) -> Vec<u64>;

    /// What happened to the flow table, over all CPUs; see [`lb_common::table::Event`].
    fn table_events(&self) -> Vec<u64>;

    /// Entries that the flow table can hold.
    fn flow_capacity(&self) -> u64;

    /// Counts the flow table; may take milliseconds.
    ///
    /// # Errors
    /// The map can't be read.
    fn census(&self, ticks_per_second: u32) -> io::Result<FlowCensus>;

    /// Has the maintenance program free what the flow table holds that is older than
    /// [`lb_common::table::ANCIENT_TICKS`]; gives the number of buckets where there was any. May take milliseconds.
    ///
    /// # Errors
    /// The maintenance program can't be run.
    fn expire(&self, ticks_per_second: u32) -> io::Result<u64>;

    /// `jiffies64`, in ticks.
    ///
    /// # Errors
    /// The maintenance program can't be run.
    fn ticks(&self) -> io::Result<u64>;

    /// What somebody else has taken from the data plane: pins, and the program's links. Quick.
    fn losses(&self) -> Losses;

    /// The program in the links.
    ///
    /// # Errors
    /// The kernel does not say.
    fn program(&self) -> io::Result<ProgramInForce>;
}

/// The program in the links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInForce {
    /// Kernel id.
    pub id: u32,
    /// Kernel tag.
    pub tag: u64,
    /// When it was loaded.
    pub loaded: Option<std::time::SystemTime>,
    /// Instructions the verifier walked.
    pub verified_instructions: u32,
}

/// A link of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface it was made for.
    pub interface: String,
    /// Index of the interface it is on; 0 where that is gone.
    pub ifindex: u32,
    /// The program in it is the one that was loaded last.
    pub current: bool,
}

/// A map can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} {map}: {cause}")]
pub struct TableError {
    /// The map.
    pub map: &'static str,
    /// What was tried.
    pub action: &'static str,
    /// Why not.
    pub cause: io::Error,
}

/// The program can't be replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A link can't be updated.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Locks what another thread may have panicked with: its parts are whole at any moment.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the innermost cause as an [`io::Error`], keeping the error number where there is one.
fn io_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
    {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::other(cause.to_string()),
    }
}
