//! What the agent tells the service manager, and that its unit is one.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lb_tests::agent::{Agent, Config};
use lb_tests::command;
use lb_tests::poll::SOON;
use lb_tests::scratch::Scratch;
use lb_tests::topology::{Arms, Topology};
use rustix::process::Signal;

#[test]
fn ready_alive_reloading_and_stopping_are_told() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let scratch = Scratch::new("notify")?;
    let path = scratch.file("notify.sock");
    let manager = UnixDatagram::bind(&path).with_context(|| path.display().to_string())?;
    manager.set_read_timeout(Some(SOON))?;
    let told = |what: &str| -> Result<()> {
        let mut seen = Vec::new();
        let mut datagram = [0; 4_096];
        loop {
            let received = manager.recv(&mut datagram);
            let length = received.with_context(|| format!("waiting for {what}, told {seen:?}"))?;
            let words = String::from_utf8_lossy(&datagram[..length]).into_owned();
            if words.lines().any(|line| line == what) {
                return Ok(());
            }
            seen.push(words);
        }
    };

    let environment = format!("env NOTIFY_SOCKET={} WATCHDOG_USEC=400000", path.display());
    let config = Config::web(&topology, None);
    let mut agent = Agent::prepare(&topology.balancer.netns, &config)?.wrapped(&environment);
    agent.begin()?;
    told("READY=1")?;
    agent.wait_until_ready()?;
    told("WATCHDOG=1")?;
    agent.signal(Signal::HUP)?;
    told("RELOADING=1")?;
    told("READY=1")?;
    ensure!(agent.terminate()?.success(), "SIGTERM");
    told("STOPPING=1")
}

#[test]
fn the_units_reload_reaches_the_agent_of_its_configuration() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut config = Config::web(&topology, None);
    config.instance = Some("edge".to_owned());
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    let text = std::fs::read_to_string(unit())?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecReload=/usr/bin/lb "))
        .context("no ExecReload")?;
    let file = agent.config_file().display().to_string();
    let line = line.replace("/etc/lb/lb.toml", &file);
    let reload = || agent.lb(&line.split_whitespace().collect::<Vec<_>>());
    let output = reload()?;
    ensure!(output.status.success(), "{}", command::said(&output));
    agent.write_text(
        &agent
            .text()?
            .replace("10.2.0.11:80", "10.2.0.11:70000")
            .replace("10.1.0.11:80", "10.1.0.11:70000"),
    )?;
    let output = reload()?;
    let words = command::said(&output);
    ensure!(
        output.status.code() == Some(1) && words.contains("70000"),
        "{words}"
    );
    let noted = agent.status()?.agent.config_error;
    ensure!(noted.is_some(), "the agent was not asked");
    Ok(())
}

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-userspace/systemd/lb.service")
}

#[test]
fn the_unit_is_valid_and_grants_three_capabilities() -> Result<()> {
    let unit = unit();
    let text = std::fs::read_to_string(&unit).with_context(|| unit.display().to_string())?;
    let value = |key: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.flat_map(str::split_whitespace).collect::<Vec<_>>()
    };
    let mut capabilities = value("CapabilityBoundingSet");
    capabilities.sort_unstable();
    assert_eq!(capabilities, ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    ensure!(
        value("Type").iter().all(|kind| kind.starts_with("notify")),
        "Type={:?}",
        value("Type")
    );

    // The executable is not installed here; everything else that systemd finds is a fault of the file.
    let mut analyze = command::words("systemd-analyze verify --man=no --recursive-errors=no");
    let words = command::said(&command::output(analyze.arg(&unit))?);
    let faults: Vec<_> = words
        .lines()
        .filter(|line| line.contains("lb.service") && !line.contains("is not executable"))
        .collect();
    ensure!(faults.is_empty(), "{faults:#?}");
    Ok(())
}
