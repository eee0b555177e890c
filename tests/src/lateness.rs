//! How late a process was because others had the CPUs: what a test that measures time must not hold against it.
//!
//! The kernel counts for each thread how long it was ready to run and did not (`/proc/<pid>/task/<tid>/schedstat`, the
//! second figure; `Documentation/scheduler/sched-stats.rst`). On an idle machine that is a few milliseconds a second, so
//! that what was promised is still held to; beside two busy loops it is as much as the loops took.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Looks at a process from its making on.
pub struct Lateness {
    threads: PathBuf,
    before: Duration,
}

impl Lateness {
    /// Of the process with this id, from now on.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let threads = Path::new("/proc").join(pid.to_string()).join("task");
        let before = waited(&threads)?;
        Ok(Self { threads, before })
    }

    /// Of this process, from now on.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn of_this_process() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// How long its threads have waited for a CPU since, all together; those that ended meanwhile are left out.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn so_far(&self) -> Result<Duration> {
        Ok(waited(&self.threads)?.saturating_sub(self.before))
    }
}

/// How long some thread of the machine had to wait for a CPU, since it was started; nothing where the kernel does not keep
/// count (`/proc/pressure/cpu`; `Documentation/accounting/psi.rst`).
///
/// # Errors
/// Where the count is not one.
pub fn of_the_machine() -> Result<Duration> {
    let Ok(text) = fs::read_to_string("/proc/pressure/cpu") else {
        return Ok(Duration::ZERO);
    };
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = some.and_then(|some| some.rsplit_once("total="));
    let (_, total) = total.with_context(|| text.clone())?;
    Ok(Duration::from_micros(total.parse()?))
}

fn waited(threads: &Path) -> Result<Duration> {
    let mut waited = Duration::ZERO;
    for thread in fs::read_dir(threads).with_context(|| threads.display().to_string())? {
        let path = thread?.path().join("schedstat");
        // A thread may end between the two.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let nanoseconds = text.split_whitespace().nth(1).map(str::parse);
        let nanoseconds = nanoseconds.with_context(|| format!("{}: {text:?}", path.display()))?;
        waited += Duration::from_nanos(nanoseconds?);
    }
    Ok(waited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{self, SOON};
    use anyhow::ensure;
    use rustix::thread::{CpuSet, sched_setaffinity};
    use std::hint;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn two_threads_that_share_a_cpu_wait_for_each_other() -> Result<()> {
        let over = AtomicBool::new(false);
        let (lateness, before) = (Lateness::of_this_process()?, of_the_machine()?);
        let spin = || -> Result<()> {
            let mut first = CpuSet::new();
            first.set(0);
            sched_setaffinity(None, &first)?;
            while !over.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads = [scope.spawn(spin), scope.spawn(spin)];
            let seen = poll::until(SOON, "100 ms of waiting", || {
                let seen = lateness.so_far()?;
                ensure!(seen > Duration::from_millis(100), "{seen:?}");
                let machine = of_the_machine()?;
                ensure!(machine.is_zero() || machine > before, "{machine:?}");
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().expect("it only spins")?;
            }
            seen
        })
    }

    #[test]
    fn a_process_that_is_not_there_is_told() {
        assert!(Lateness::of(u32::MAX).is_err());
    }
}
