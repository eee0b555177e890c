//! How the program attaches: native, generic because the file says so, generic because the driver can't, loudly.

use anyhow::{Context, Result, ensure};
use lb_tests::agent::{Agent, Config};
use lb_tests::http;
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
