//! The demo, as a newcomer runs it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::agent;
use lb_tests::command;
use lb_tests::lateness;
use lb_tests::poll::{self, SOON};
use lb_tests::scratch::Scratch;
use lb_tests::turn;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn it_ends_well_within_a_minute_and_removes_everything() -> Result<()> {
    let _turn = turn::alone();
    let (start, waited) = (Instant::now(), lateness::of_the_machine()?);
    let text = command::run(&mut demo(&[])?)?;
    let (took, late) = (
        start.elapsed(),
        lateness::of_the_machine()?.saturating_sub(waited),
    );
    ensure!(
        took < Duration::from_mins(1) + late,
        "it took {took:?}, {late:?} late"
    );
    assert_eq!(text.lines().last(), Some("demo: ok"), "{text}");
    ensure!(
        !text.contains('\u{1b}'),
        "colours where nobody looks: {text:?}"
    );
    Ok(())
}

#[test]
fn kept_it_stays_until_ctrl_c_and_the_commands_that_it_prints_work() -> Result<()> {
    let _turn = turn::alone();
    let scratch = Scratch::new("demo")?;
    let output = scratch.file("output");
    let file = fs::File::create(&output)?;
    let mut kept = Kept(
        demo(&["--keep"])?
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()?,
    );
    let text = poll::until(Duration::from_mins(3), "the commands to try", || {
        if let Some(status) = kept.0.try_wait()? {
            return Ok(Err(status));
        }
        let text = fs::read_to_string(&output)?;
        ensure!(text.contains("It stays until Ctrl-C"), "{text}");
        ensure!(
            text.ends_with('\n') && text.contains("web1 again"),
            "{text}"
        );
        Ok(Ok(text))
    })?;
    let text = text.map_err(|status| anyhow!("it ended: {status}"))?;
    let printed = |words: &[&str]| {
        let lines = text.lines().map(str::trim);
        let mut found = lines.filter(|line| words.iter().all(|word| line.contains(word)));
        found
            .next()
            .with_context(|| format!("no command with {words:?} in\n{text}"))
    };
    let answer = command::line(&format!(
        "{} --silent",
        printed(&["ip netns exec", "curl", "10.1.0.100"])?
    ))?;
    ensure!(answer.starts_with("web"), "{answer}");
    let status = command::line(printed(&["status --socket"])?)?;
    ensure!(
        status.contains("web0") && status.contains("web1"),
        "{status}"
    );
    let metrics = command::line(&format!(
        "{} --silent",
        printed(&["ip netns exec", "/metrics"])?
    ))?;
    ensure!(metrics.contains("lb_build_info"), "{metrics}");

    kill_process(Pid::from_child(&kept.0), Signal::INT)?;
    let ended = poll::until(SOON, "it to end", || kept.0.try_wait()?.context("it runs"))?;
    ensure!(ended.success(), "{ended}: {}", fs::read_to_string(&output)?);
    let text = fs::read_to_string(&output)?;
    assert_eq!(text.lines().last(), Some("demo: ok"), "{text}");
    left_by(kept.0.id())
}

/// A demo under way; interrupted when dropped.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        let interrupted = kill_process(Pid::from_child(&self.0), Signal::INT);
        if let Err(error) = interrupted.map_err(Into::into).and_then(|()| self.0.wait()) {
            eprintln!("harness: the demo stays: {error}");
        }
    }
}

fn demo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(arguments)
        .env(xtask::variables::AGENT, agent::binary()?);
    Ok(command)
}

/// Makes sure that a process left neither namespace nor directory.
fn left_by(pid: u32) -> Result<()> {
    let prefix = format!("lbt{pid}-");
    let mut left: Vec<PathBuf> = Vec::new();
    for directory in ["/run", "/run/netns"] {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                left.push(entry.path());
            }
        }
    }
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
