//! What tests must not leave behind: network namespaces, directories, BPF file systems and pins, processes.

use std::fs::{self, DirEntry};
use std::path::Path;
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

/// What the harness named in `directory`, and nobody is using any more.
fn named(directory: &str) -> Vec<String> {
    // The directory of namespaces comes into being with the first one.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left = names.filter(|name| maker(name).is_some_and(|pid| !runs(pid)));
    left.map(|name| format!("{directory}/{name}")).collect()
}

/// The process that made a thing of this name: all that the harness makes is called `lbt<pid>-..`.
fn maker(name: &str) -> Option<u32> {
    let pid = name.strip_prefix("lbt")?.split('-').next()?;
    pid.parse().ok()
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
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
    let mounts = mounts
        .iter()
        .map(|mount| format!("BPF file system {mount}"));
    Ok(mounts.chain(pins).collect())
}

/// Mount points of type `bpf` in the format of `/proc/self/mounts`, but those in the harness' directories, which [`named`] sees.
fn bpf_mounts(mounts: &str) -> Vec<String> {
    let point = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "bpf" && !point.starts_with("/run/lbt")).then(|| point.to_owned())
    };
    mounts.lines().filter_map(point).collect()
}

/// The children of this process that still run, orphans of the tests among them.
fn children() -> Result<Vec<String>> {
    let this = process::id().to_string();
    let processes = fs::read_dir("/proc").context("can't read /proc")?.flatten();
    let child = |entry: DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let is_ours = field("PPid:\t")? == this && !field("State:\t")?.starts_with('Z');
        let (pid, name) = (entry.file_name(), field("Name:\t")?);
        is_ours.then(|| format!("process {} ({name})", pid.display()))
    };
    Ok(processes.filter_map(child).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_file_systems_are_told_by_their_type() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\nbpf /run/bpf tmpfs rw 0 0\nx /tmp/x bpf rw 0 0\nbpf /run/lbt1-2-agent/bpf bpf rw 0 0\n";
        assert_eq!(bpf_mounts(mounts), ["/sys/fs/bpf", "/tmp/x"]);
    }

    #[test]
    fn a_name_tells_its_maker_and_a_maker_that_runs_is_using_it() {
        assert_eq!(maker("lbt4711-2-client"), Some(4711));
        assert_eq!(maker("lbtest"), None);
        assert_eq!(maker("4711-2-client"), None);
        assert!(runs(process::id()));
        assert!(!runs(u32::MAX));
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
