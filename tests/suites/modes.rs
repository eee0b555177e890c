//! How the program attaches: native, generic because the file says so, generic because the driver can't, loudly.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::agent::{Agent, Config};
use lb_tests::http::{self, load::Load};
use lb_tests::link;
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

/// An interface without native XDP: a bridge without ports.
const BRIDGE: &str = "br9";

#[test]
fn auto_falls_back_to_generic_and_says_so_loudly() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    link::bridge(topology.balancer.interface(BRIDGE))?;
    let mut config = Config::web(&topology, None);
    config
        .interfaces
        .push((BRIDGE.to_owned(), "auto".to_owned()));
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    assert_eq!(mode(&agent, BRIDGE)?, "generic");
    assert_eq!(mode(&agent, "eth0")?, "native");
    let loud = agent.events()?.into_iter().find(|event| {
        event.field("level") == "WARN"
            && event.line.to_string().contains(BRIDGE)
            && event.line.to_string().contains("generic")
    });
    ensure!(loud.is_some(), "no warning names {BRIDGE}");
    Ok(())
}

#[test]
fn native_refuses_a_driver_without_it() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    link::bridge(topology.balancer.interface(BRIDGE))?;
    let mut config = Config::web(&topology, None);
    config
        .interfaces
        .push((BRIDGE.to_owned(), "native".to_owned()));
    let mut agent = Agent::prepare(&topology.balancer.netns, &config)?;
    let failure = agent.run_to_failure()?;
    ensure!(failure.status.code() == Some(1), "{failure:?}");
    for word in [BRIDGE, "native", "auto"] {
        ensure!(
            failure.said.contains(word),
            "does not say `{word}`: {}",
            failure.said
        );
    }
    let left = topology.balancer.link().xdp()?;
    ensure!(
        left.is_none(),
        "the first interface keeps its program: {left:?}"
    );
    Ok(())
}

#[test]
fn auto_on_veth_is_native() -> Result<()> {
    let web = with_mode(Arms::Two, "auto")?;
    for name in ["front", "back"] {
        assert_eq!(mode(&web.agent, name)?, "native");
    }
    Ok(())
}

#[test]
fn generic_serves_one_arm_and_two_arm() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let web = with_mode(arms, "generic")?;
        for name in web.topology.balancer_interfaces() {
            assert_eq!(mode(&web.agent, name)?, "generic");
        }
        let tally = http::tally(&web.client().sequence(20)?);
        assert_eq!(
            tally,
            [("web0".to_owned(), 10), ("web1".to_owned(), 10)].into(),
            "{arms:?}"
        );
    }
    Ok(())
}

#[test]
fn a_reload_into_a_mode_that_is_refused_leaves_the_program_running() -> Result<()> {
    let topology = Topology::new(Arms::One, 2)?;
    link::bridge(topology.balancer.interface(BRIDGE))?;
    let mut config = Config::web(&topology, None);
    config
        .interfaces
        .push((BRIDGE.to_owned(), "generic".to_owned()));
    let web = Web::with_config(topology, &config)?;
    let session = Load::sessions(&web.client(), 2, Duration::from_millis(10));
    config.interfaces[1].1 = "native".to_owned();
    refuses_the_bridge(&web, &config)?;
    let failures = http::failures(&session.stop()?);
    assert!(failures.is_empty(), "{failures:#?}");
    // Another interface takes its new mode, and is put back into the earlier one.
    config.interfaces[0].1 = "generic".to_owned();
    refuses_the_bridge(&web, &config)?;
    // A mode that is not refused is still taken.
    config.interfaces[1].1 = "generic".to_owned();
    web.agent.reload(&config)?;
    assert_eq!(mode(&web.agent, "eth0")?, "generic");
    Ok(())
}

/// Reloads; the refusal leaves everything as it was, and requests are answered.
fn refuses_the_bridge(web: &Web, config: &Config) -> Result<()> {
    let refusal = web.agent.reload(config).err();
    let refusal = refusal.map(|error| error.to_string()).unwrap_or_default();
    for word in ["refused: ", BRIDGE, "native", "help: "] {
        ensure!(refusal.contains(word), "does not say `{word}`: {refusal}");
    }
    assert_eq!(mode(&web.agent, BRIDGE)?, "generic");
    assert_eq!(mode(&web.agent, "eth0")?, "native");
    let bridge = web.topology.balancer.interface(BRIDGE).xdp()?;
    ensure!(bridge.is_some(), "no program on {BRIDGE}");
    let tally = http::tally(&web.client().sequence(10)?);
    assert_eq!(tally.values().sum::<usize>(), 10, "{tally:?}");
    Ok(())
}

fn with_mode(arms: Arms, mode: &str) -> Result<Web> {
    let topology = Topology::new(arms, 2)?;
    let mut config = Config::web(&topology, None);
    for (_, chosen) in &mut config.interfaces {
        mode.clone_into(chosen);
    }
    Web::with_config(topology, &config)
}

fn mode(agent: &Agent, name: &str) -> Result<String> {
    let status = agent.status()?;
    let row = status.interfaces.into_iter().find(|row| row.name == name);
    Ok(row
        .with_context(|| format!("no {name} in the status"))?
        .mode)
}
