//! Nothing stays behind: not on a panic, not on a signal, and not for longer than to the next run on a `kill -9`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::command;
use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::poll;
use lb_tests::scratch::Scratch;
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_panic_leaves_nothing_behind() -> Result<()> {
    let (send, receive) = std::sync::mpsc::channel();
    let outcome = std::thread::spawn(move || {
        let netns = Netns::new("doomed").unwrap();
        let scratch = Scratch::new("doomed").unwrap();
        scratch.mount_bpffs().unwrap();
        let sleeper = netns.words("sleep 1000").spawn().unwrap();
        send.send((netns.name().to_owned(), scratch.file(""), sleeper))
            .unwrap();
        panic!("as a test would");
    })
    .join();
    assert!(outcome.is_err(), "the thread should have panicked");
    let (name, directory, mut sleeper) = receive.recv()?;
    assert!(
        !Path::new("/run/netns").join(&name).exists(),
        "{name} is there"
    );
    assert!(!directory.exists(), "{} is there", directory.display());
    poll::until(SOON, "the child to die with the thread", || {
        sleeper.try_wait()?.map(drop).context("it lives")
    })
}

#[test]
fn ctrl_c_and_sigterm_leave_nothing_behind() -> Result<()> {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut victim = victim()?;
        let pid = victim.id();
        poll::until(SOON, "it to make what it makes", || made_by(pid, 3))?;
        kill_process(Pid::from_child(&victim), signal)?;
        let ended = poll::until(SOON, "it to end", || victim.try_wait()?.context("it runs"))?;
        assert_eq!(ended.code(), Some(status), "{signal:?}");
        made_by(pid, 0)?;
    }
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() -> Result<()> {
    let mut victim = victim()?;
    let pid = victim.id();
    poll::until(SOON, "it to make what it makes", || made_by(pid, 3))?;
    victim.kill()?;
    victim.wait()?;
    made_by(pid, 3)?;
    // A test of another process: it makes a namespace, and before that looks what the dead have left.
    command::run(itself()?.args(["--exact", "a_command_that_fails_shows_what_it_said"]))?;
    made_by(pid, 0)
}

#[test]
#[ignore = "the victim of the two above"]
fn waits_for_its_end() -> Result<()> {
    let scratch = Scratch::new("victim")?;
    scratch.mount_bpffs()?;
    let netns = Netns::new("victim")?;
    let _sleeper = Daemon::start(netns.words("sleep 1000"), &scratch.file("log"))?;
    // Parked for ever: only a signal ends it.
    std::thread::park();
    Ok(())
}

/// This program, to run one of its tests.
fn itself() -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn victim() -> Result<Child> {
    Ok(itself()?
        .args(["--exact", "teardown::waits_for_its_end", "--ignored"])
        .spawn()?)
}

/// Makes sure that there are so many namespaces, directories and mounts of a process.
fn made_by(pid: u32, expected: usize) -> Result<()> {
    let prefix = format!("lbt{pid}-");
    let mut found: Vec<PathBuf> = Vec::new();
    for directory in ["/run", "/run/netns"] {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                found.push(entry.path());
            }
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = mounts
        .lines()
        .filter(|line| line.starts_with("bpf ") && line.contains(&prefix));
    found.extend(mounted.map(PathBuf::from));
    ensure!(
        found.len() == expected,
        "{} things of {pid}, {expected} expected: {found:?}",
        found.len()
    );
    Ok(())
}
