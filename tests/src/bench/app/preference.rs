//! Being preferred to others, because the machine may not be this program's alone.
//!
//! All that works for a run is preferred alike, so that nothing changes between them; on a machine without others it
//! changes nothing at all. Where the kernel shares the CPUs among sessions first (`sched(7)`, autogroups), what a
//! process is preferred by holds in its session only, and the session has to be preferred too.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, getpriority_process, setpriority_process};

use crate::teardown::Undo;

/// How much, on the scale of `nice`.
const PREFERENCE: i32 = -15;
/// The group of this session, where there are groups.
const GROUP: &str = "/proc/self/autogroup";

/// Prefers this thread and all that it starts, until dropped.
pub(super) struct Preferred {
    _undo: Undo,
}

impl Preferred {
    /// From now on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn new() -> Result<Self> {
        let before = getpriority_process(None)?;
        // As in `/autogroup-109 nice 0`.
        let group = fs::read_to_string(GROUP).ok();
        let group = group.and_then(|group| group.split_whitespace().last().map(str::to_owned));
        let grouped = group.is_some();
        let ((), undo) = Undo::make(
            || set(PREFERENCE, grouped.then(|| PREFERENCE.to_string())),
            |()| {
                Box::new(move || {
                    if let Err(error) = set(before, group) {
                        eprintln!("harness: {error:#}");
                    }
                })
            },
        )?;
        Ok(Self { _undo: undo })
    }
}

/// Prefers a thread of the kernel that works for a run.
///
/// # Errors
/// Where there is none.
pub(super) fn prefer(thread: u32) -> Result<()> {
    let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
    Ok(setpriority_process(thread, PREFERENCE)?)
}

fn set(preference: i32, group: Option<String>) -> Result<()> {
    setpriority_process(None, preference).context("being preferred to others")?;
    group
        .map_or(Ok(()), |group| fs::write(GROUP, group))
        .context(GROUP)
}
