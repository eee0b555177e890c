//! Nothing stays behind: not on a panic, not on a signal, and not for longer than to the next run on a `kill -9`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use lb_tests::command;
use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::poll::{self, SOON};
use lb_tests::scratch::Scratch;
use rustix::process::{Pid, Signal, kill_process};

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
    sweep()?;
    made_by(pid, 0)
}

#[test]
fn what_a_killed_test_left_stays_for_its_own_run_to_find() -> Result<()> {
    // The run that the test belongs to, as `cargo xtask test` is: it lives for as long as its end of the pipe.
    let mut run = command::words("cat").stdin(Stdio::piped()).spawn()?;
    let mut victim = victim_of(&run.id().to_string())?;
    let pid = victim.id();
    poll::until(SOON, "it to make what it makes", || made_by(pid, 3))?;
    victim.kill()?;
    victim.wait()?;
    let of_the_run = |name: &str| name.ends_with(&format!("-r{}", run.id()));
    let namespaces = fs::read_dir("/run/netns")?.collect::<Result<Vec<_>, _>>()?;
    let found = namespaces
        .iter()
        .any(|entry| of_the_run(&entry.file_name().to_string_lossy()));
    sweep()?;
    let kept = made_by(pid, 3);
    drop(run.stdin.take());
    run.wait()?;
    sweep()?;
    ensure!(found, "no name tells the run");
    kept.context("while its run lives")?;
    made_by(pid, 0).context("after its run")
}

#[test]
#[ignore = "the victim of those above"]
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

/// A test of no run, so that what it leaves is nobody's.
fn victim() -> Result<Child> {
    victim_of("")
}

/// A test that belongs to a run, by the run's process id.
fn victim_of(run: &str) -> Result<Child> {
    let mut command = itself()?;
    command.env(xtask::variables::RUN, run);
    Ok(command
        .args(["--exact", "teardown::waits_for_its_end", "--ignored"])
        .spawn()?)
}

/// Runs a test of another process: it makes a namespace, and before that looks what the dead have left.
fn sweep() -> Result<()> {
    command::run(itself()?.args(["--exact", "a_command_that_fails_shows_what_it_said"])).map(drop)
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
