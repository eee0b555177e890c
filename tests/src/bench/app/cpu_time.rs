//! How long processes and threads of the kernel have run, and what else used the CPUs.
//!
//! The kernel counts a thread's time in nanoseconds (`schedstat`), and with it the packets that are handled in passing
//! on its back. It counts the time in which a CPU had nothing to do as well; what is neither that nor a thread of ours
//! or of the kernel was somebody else's.

use std::fs;
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::preference;

/// The kernel's own thread that begins all the others of the kernel.
const KTHREADD: u32 = 2;
/// A tick of `/proc/stat` and `/proc/*/stat`, the same on every machine of this architecture.
const TICK: Duration = Duration::from_millis(10);

/// Times since the machine started.
pub(super) struct Moment {
    at: Instant,
    idle: Duration,
    stolen: Duration,
    cpus: u32,
    /// Of the kernel's threads, of this process, and of what it has started.
    known: Duration,
}

impl Moment {
    /// Now.
    ///
    /// # Errors
    /// Where `/proc` does not say.
    pub(super) fn now() -> Result<Self> {
        let at = Instant::now();
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let fields: Vec<u32> = line
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse().ok())
            .collect();
        let ticks = |field: usize| fields.get(field).copied().context("a field of /proc/stat");
        Ok(Self {
            at,
            // Waiting for a disk is having nothing to do.
            idle: TICK * (ticks(3)? + ticks(4)?),
            stolen: TICK * ticks(7)?,
            cpus: u32::try_from(stat.lines().filter(|line| line.starts_with("cpu")).count() - 1)?,
            known: known()?,
        })
    }

    /// How many CPUs others have used on average since then.
    ///
    /// # Errors
    /// Where `/proc` does not say.
    pub(super) fn others_since(&self) -> Result<f64> {
        let now = Self::now()?;
        let span = now.at - self.at;
        let had = span * self.cpus + now.stolen.saturating_sub(self.stolen);
        let accounted = now.idle.saturating_sub(self.idle) + now.known.saturating_sub(self.known);
        Ok(had.saturating_sub(accounted).as_secs_f64() / span.as_secs_f64())
    }
}

fn known() -> Result<Duration> {
    let ours = process::id();
    let mut sum = ran(ours)?;
    // Those that have ended, wrk among them, are in this process' own account.
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    sum += TICK
        * fields(&stat)
            .skip(13)
            .take(2)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum::<u32>();
    for process in fs::read_dir("/proc").context("/proc")? {
        let path = process?.path();
        // Not every entry is a process, and a process may end meanwhile.
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let parent = fields(&stat)
            .nth(1)
            .and_then(|field| field.parse::<u32>().ok());
        if parent.is_some_and(|parent| parent == ours || parent == KTHREADD) {
            sum += ran_at(&path);
        }
    }
    Ok(sum)
}

/// The fields behind the name, which may hold anything: state, parent and so on.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
}

/// How long a process has run, all threads.
///
/// # Errors
/// Where there is none.
pub(super) fn ran(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}");
    fs::metadata(&path).with_context(|| path.clone())?;
    Ok(ran_at(Path::new(&path)))
}

fn ran_at(process: &Path) -> Duration {
    let threads = fs::read_dir(process.join("task"))
        .into_iter()
        .flatten()
        .flatten();
    let times = threads.map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let nanoseconds = text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse().ok());
        Duration::from_nanos(nanoseconds.unwrap_or_default())
    });
    times.sum()
}

/// The kernel's threads that receive for these interfaces.
pub(super) struct Receivers {
    threads: Vec<u32>,
}

impl Receivers {
    /// Those of these interfaces, whose names no other interface of the machine has.
    ///
    /// # Errors
    /// Where an interface has none.
    pub(super) fn of(interfaces: &[&str]) -> Result<Self> {
        let mut threads = Vec::new();
        for interface in interfaces {
            let prefix = format!("napi/{interface}-");
            let before = threads.len();
            for process in fs::read_dir("/proc").context("/proc")? {
                let process = process?;
                let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                if comm.starts_with(&prefix) {
                    threads.push(process.file_name().to_string_lossy().parse()?);
                }
            }
            ensure!(threads.len() > before, "no thread {prefix}*");
        }
        Ok(Self { threads })
    }

    /// Prefers them, as all of ours.
    ///
    /// # Errors
    /// Where one has ended.
    pub(super) fn prefer(&self) -> Result<()> {
        self.threads
            .iter()
            .try_for_each(|thread| preference::prefer(*thread))
    }

    /// How long they have run.
    ///
    /// # Errors
    /// Where one has ended.
    pub(super) fn ran(&self) -> Result<Duration> {
        self.threads.iter().map(|thread| ran(*thread)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "12 (a) b (c) S 2 0 0";
        assert_eq!(fields(stat).collect::<Vec<_>>(), ["S", "2", "0", "0"]);
    }

    #[test]
    fn what_this_process_does_is_nobody_elses() {
        let (before, begun) = (Moment::now().unwrap(), Instant::now());
        let ran_before = ran(process::id()).unwrap();
        while begun.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let ran = ran(process::id()).unwrap().saturating_sub(ran_before);
        let known = known().unwrap().saturating_sub(before.known);
        assert!(
            ran >= Duration::from_millis(20) && known >= ran,
            "{ran:?} of {known:?}"
        );
    }
}
