//! Staying on one CPU, and what else works there.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, panic, thread};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Runs `work` on a thread that keeps to [`chosen`].
///
/// # Errors
/// Those of `work`, or where the kernel does not let it stay.
pub(super) fn pinned<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| pin(chosen()?).and_then(|()| work()));
        thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// The CPU to measure on: the last that this thread may use, because interrupts prefer the first.
///
/// # Errors
/// Where the kernel does not say.
pub(super) fn chosen() -> Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    last.context("this thread may use no CPU")
}

/// Keeps this thread on one CPU.
///
/// # Errors
/// Where the kernel does not let it.
pub(super) fn pin(cpu: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).context("staying on one CPU")
}

/// The kernel's thread that handles packets on one CPU when that is more than can be done in passing.
pub(super) struct SoftirqThread {
    schedstat: PathBuf,
}

impl SoftirqThread {
    /// That of a CPU.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn of(cpu: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{cpu}");
        for process in fs::read_dir("/proc").context("/proc")? {
            let process = process?.path();
            // Not every entry is a process, and a process may end meanwhile.
            let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
            if comm.trim_end() == name {
                let schedstat = process.join("schedstat");
                return Ok(Self { schedstat });
            }
        }
        Err(anyhow::anyhow!("no {name} among the processes"))
    }

    /// How long it has run since the machine started.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub(super) fn ran(&self) -> Result<Duration> {
        let text = fs::read_to_string(&self.schedstat)?;
        let nanoseconds = text.split_whitespace().next().unwrap_or_default();
        let nanoseconds = nanoseconds.parse().with_context(|| text.clone())?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}
