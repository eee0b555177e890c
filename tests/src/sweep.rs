//! Removing what the suites made: a namespace at its end, and at the start what an earlier run that was killed left.
//!
//! Only what carries the name of a process that no longer exists is touched: namespaces, the processes in them, and
//! directories with the bpffs mounted in them (whose pins, programs and links go with the mount). What belongs to a run of
//! `cargo xtask test` stays while that runs: it is a leak of a test, and the run has to find it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::{command, names};

/// Where `ip netns` keeps its namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// The mount point of the bpffs in the directory of a test.
pub(crate) const BPFFS: &str = "bpf";
/// Where the directories of tests lie.
pub(crate) const SCRATCH: &str = "/run";

/// Clears what dead runs left, the first time that it is called.
pub(crate) fn once() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| sweep().map_err(|error| format!("{error:#}")));
    done.clone().map_err(anyhow::Error::msg)
}

/// Ends the processes in a namespace and removes it; says so where that fails.
pub(crate) fn remove_namespace(name: &str) {
    let removed = end_processes(name).and_then(|()| command::line(&format!("ip netns del {name}")));
    if let Err(error) = removed {
        eprintln!("harness: namespace {name} stays: {error:#}");
    }
}

/// Unmounts the bpffs in a directory of a test and removes the directory; says so where that fails.
pub(crate) fn remove_directory(directory: &Path) {
    let bpffs = directory.join(BPFFS);
    let unmounted = match unmount(&bpffs, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    };
    // Somebody who does not know yet that it is over may still be writing a file into it.
    let remove = || fs::remove_dir_all(directory);
    let removed = unmounted.and_then(|()| remove().or_else(|_| remove()).or_else(|_| remove()));
    if let Err(error) = removed {
        eprintln!("harness: {} stays: {error}", directory.display());
    }
}

fn sweep() -> Result<()> {
    for name in left_in(NAMESPACES)? {
        eprintln!("harness: removing namespace {name}, left by a run that was killed");
        remove_namespace(&name);
    }
    for name in left_in(SCRATCH)? {
        eprintln!("harness: removing {SCRATCH}/{name}, left by a run that was killed");
        remove_directory(&Path::new(SCRATCH).join(name));
    }
    Ok(())
}

/// Entries of a directory for which nobody answers any more: neither their maker lives nor the run that it belonged to.
fn left_in(directory: &'static str) -> Result<Vec<String>> {
    let alive = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    let mut left = made_in(directory, |pid| !alive(pid))?;
    left.retain(|name| !names::run(name).is_some_and(alive));
    Ok(left)
}

/// Namespaces and directories of a living process, this one.
pub(crate) fn of_this_process() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in [NAMESPACES, SCRATCH] {
        found.extend(made_in(directory, |pid| pid == std::process::id())?);
    }
    Ok(found)
}

/// Entries of a directory whose names tell a maker that is one of `these`.
fn made_in(directory: &'static str, these: impl Fn(u32) -> bool) -> Result<Vec<String>> {
    if !Path::new(directory).exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).context(directory)? {
        let name = entry
            .context(directory)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if names::maker(&name).is_some_and(&these) {
            found.push(name);
        }
    }
    Ok(found)
}

fn end_processes(name: &str) -> Result<()> {
    for pid in command::line(&format!("ip netns pids {name}"))?.lines() {
        let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot end process {pid:?}")),
        }
    }
    Ok(())
}
