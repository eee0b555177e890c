//! What tests must not leave behind: network namespaces, directories, BPF file systems and pins, processes.

use std::fs;
use std::process;

use anyhow::{Context, Result};

use crate::root;

/// What was there at one moment, so that only what came since is held against the tests.
pub(crate) struct Snapshot(Vec<String>);

impl Snapshot {
    /// Looks around. From now on, processes that lose their parent become children of this one.
    pub(crate) fn take() -> Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("can't adopt orphans")?;
        Ok(Self(everything()?))
    }

    /// What has come since and is still there, a line each.
    pub(crate) fn leaks(&self) -> Result<Vec<String>> {
        let mut now = everything()?;
        now.retain(|thing| !self.0.contains(thing));
        Ok(now)
    }
}

fn everything() -> Result<Vec<String>> {
    // Network namespaces, then the directories of the tests.
    let mut things = [named("/run/netns"), named("/run")].concat();
    things.extend(pins()?);
    things.extend(children()?);
    Ok(things)
}

/// What the harness named in `directory`: all its names begin with `lbt`.
fn named(directory: &str) -> Vec<String> {
    // The directory of namespaces comes into being with the first one.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("lbt"))
        .map(|name| format!("{directory}/{name}"))
        .collect()
}

/// BPF file systems, and what agents pinned in them, `<file system>/lb/..`.
fn pins() -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("can't read /proc/self/mounts")?;
    let mounts = bpf_mounts(&mounts);
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    // Only root may look into a BPF file system.
    let mut find = root::command("find")?;
    find.args(&mounts).args(["-path", "*/lb/*"]);
    let output = find
        .output()
        .with_context(|| format!("can't run {find:?}"))?;
    let pins = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|pin| format!("pin {pin}"))
        .collect::<Vec<_>>();
    Ok(mounts
        .iter()
        .map(|mount| format!("BPF file system {mount}"))
        .chain(pins)
        .collect())
}

/// Mount points of type `bpf` in the format of `/proc/self/mounts`.
fn bpf_mounts(mounts: &str) -> Vec<String> {
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2) == Some(&"bpf"))
        .filter_map(|fields| fields.get(1).map(ToString::to_string))
        .collect()
}

/// The children of this process that still run, orphans of the tests among them.
fn children() -> Result<Vec<String>> {
    let this = process::id().to_string();
    let processes = fs::read_dir("/proc").context("can't read /proc")?.flatten();
    Ok(processes
        .filter_map(|entry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let field = |name: &str| {
                status
                    .lines()
                    .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
            };
            let runs = !field("State:")?.starts_with('Z');
            (runs && field("PPid:")? == this).then(|| {
                format!(
                    "process {} ({})",
                    entry.file_name().display(),
                    field("Name:").unwrap_or_default()
                )
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_file_systems_are_told_by_their_type() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\nnone /run/bpf tmpfs rw 0 0\nbpffs /tmp/x bpf rw 0 0\n";
        assert_eq!(bpf_mounts(mounts), ["/sys/fs/bpf", "/tmp/x"]);
    }

    #[test]
    fn a_child_that_runs_is_seen_and_one_that_ended_is_not() {
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        let line = format!("process {} (sleep)", child.id());
        assert!(children().unwrap().contains(&line));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&line));
    }
}
