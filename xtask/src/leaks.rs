//! What tests must not leave behind: network namespaces, directories with the BPF file systems and pins in them, processes.
//!
//! Others use the machine at the same time, another run of the tests among them, so only what is known to be of this run
//! counts. The harness ends the names of all that it makes with the run that it belongs to ([`mark`]). It lets agents pin
//! nowhere but in its directories, and programs and links that are not pinned go with the namespaces and the processes that
//! hold them. Processes are known by their descent.

use std::fs::{self, DirEntry};
use std::process::{self, Command};

use anyhow::{Context, Result};
use xtask::variables::RUN;

/// Where the harness makes namespaces and directories.
const PLACES: [&str; 2] = ["/run/netns", "/run"];

/// Has the tests that `command` starts name what they make after this run.
pub(crate) fn mark(command: &mut Command) {
    command.env(RUN, process::id().to_string());
}

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
    let mut things: Vec<_> = PLACES
        .iter()
        .flat_map(|place| named(place, process::id()))
        .collect();
    things.extend(children()?);
    Ok(things)
}

/// What the harness named in `directory` for a run.
fn named(directory: &str, run: u32) -> Vec<String> {
    // The directory of namespaces comes into being with the first one.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = names.filter(|name| is_of(name, run));
    ours.map(|name| format!("{directory}/{name}")).collect()
}

/// Whether a thing of this name belongs to a run: all that the harness makes for one is called `lbt<pid>-..-r<run>`.
fn is_of(name: &str, run: u32) -> bool {
    name.starts_with("lbt") && name.ends_with(&format!("-r{run}"))
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
    use std::env;

    #[test]
    fn what_this_run_left_is_found_and_what_another_left_is_not() {
        let place = env::temp_dir().join(format!("lb-leaks-{}", process::id()));
        fs::create_dir(&place).unwrap();
        for name in [
            "lbt4711-2-client-r77",
            "lbt4711-3-agent-r770",
            "lbt4711-4-agent-r7",
            "lbt4711-5-client",
            "other-r77",
        ] {
            fs::write(place.join(name), "").unwrap();
        }
        let found = named(&place.display().to_string(), 77);
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(found, [format!("{}/lbt4711-2-client-r77", place.display())]);
    }

    #[test]
    fn a_place_that_is_not_there_is_empty() {
        assert_eq!(named("/nowhere/at/all", 1), Vec::<String>::new());
    }

    #[test]
    fn the_tests_are_told_the_run() {
        let mut command = Command::new("true");
        mark(&mut command);
        let told: Vec<_> = command.get_envs().collect();
        let this = process::id().to_string();
        assert_eq!(told, [(RUN.as_ref(), Some(this.as_ref()))]);
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
