//! What the agent says of the drivers of its interfaces: what they refuse and why, what they count, what costs packets.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::agent::{Agent, Config, Failure, SOON};
use lb_tests::command;
use lb_tests::icmp::IcmpSocket;
use lb_tests::link;
use lb_tests::pass::XdpPass;
use lb_tests::poll;
use lb_tests::scratch::Scratch;
use lb_tests::topology::{Arms, Topology, VIP};
use lb_tests::web::Web;
use lb_userspace::nic::{self, Peer};
use lb_userspace::status::InterfaceReport;

#[test]
fn what_ethtool_shows_of_a_veth_is_what_the_agent_reads() -> Result<()> {
    let topology = Topology::new(Arms::One, 0)?;
    let balancer = &topology.balancer;
    let (near, far) = (balancer.interface("x0"), balancer.interface("x1"));
    link::veth(near, far)?;
    let read = |name: &str| -> Result<nic::Nic> {
        let path = format!("/sys/class/net/{name}");
        balancer.netns.run(|| {
            let ifindex = rustix::net::netdevice::name_to_index(
                rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )?,
                name,
            );
            Ok(nic::read(name, ifindex.with_context(|| path.clone())?)?)
        })?
    };
    let seen = read("x0")?;
    assert_eq!((seen.driver.as_str(), seen.mtu), ("veth", 1500));
    ensure!(!seen.gro_hw.on && seen.lro.fixed, "{seen:?}");
    let peer = |has_program, gro, tx_checksum| Peer::Here {
        name: "x1".to_owned(),
        mtu: 1500,
        has_program,
        gro,
        tx_checksum,
    };
    assert_eq!(seen.peer, Some(peer(false, false, true)));
    far.offload("tx", false)?;
    far.offload("gro", true)?;
    assert_eq!(read("x0")?.peer, Some(peer(false, true, false)));
    let _pass = XdpPass::attach(far)?;
    assert_eq!(read("x0")?.peer, Some(peer(true, true, false)));
    assert_eq!(read("eth0")?.peer, Some(Peer::Elsewhere));
    let counted = balancer.netns.run(|| nic::counters("x0"))??;
    let shown = balancer.netns.exec("ethtool -S x0")?;
    for name in counted.keys() {
        ensure!(shown.contains(&format!("{name}: ")), "{name} in {shown}");
    }
    ensure!(
        counted.contains_key("rx_queue_1_xdp_tx_errors"),
        "{counted:?}"
    );
    Ok(())
}

#[test]
fn a_peer_that_swallows_frames_is_named_with_the_commands_until_they_were_typed() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let balancer = &topology.balancer;
    let (near, far) = (balancer.interface("x0"), balancer.interface("x1"));
    link::veth(near, far)?;
    let mut config = Config::web(&topology, None);
    config.interfaces = vec![("x0".to_owned(), "native".to_owned())];
    let agent = Agent::start(&balancer.netns, &config)?;
    let notices = || Ok::<_, anyhow::Error>(interface(&agent, "x0")?.notices);
    let told = notices()?.join("\n");
    for word in [
        "`ethtool -K x1 tx off`",
        "x1 has no XDP program",
        "xdp-filter",
    ] {
        ensure!(told.contains(word), "does not say `{word}`: {told}");
    }
    warned(&agent, "interface_notice", "`ethtool -K x1 tx off`")?;
    far.offload("tx", false)?;
    let _pass = XdpPass::attach(far)?;
    assert_eq!(notices()?, [""; 0]);
    Ok(())
}

#[test]
fn a_peer_in_another_namespace_is_told_of_with_a_placeholder() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 1)?, None)?;
    warned(&web.agent, "interface_unseen", "`ethtool -K PEER tx off`")?;
    assert_eq!(interface(&web.agent, "front")?.notices, [""; 0]);
    Ok(())
}

#[test]
fn an_mtu_that_native_mode_refuses_is_told_with_the_limit() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let balancer = &topology.balancer;
    let (near, far) = (balancer.interface("x0"), balancer.interface("x1"));
    link::veth(near, far)?;
    let mut config = Config::web(&topology, None);
    config.interfaces = vec![("x0".to_owned(), "native".to_owned())];
    far.netns.ip("link set x1 mtu 9000")?;
    let Failure { said, .. } = Agent::prepare(&balancer.netns, &config)?.run_to_failure()?;
    for word in ["peer x1 is 9000", "3498", "ip link set dev x1 mtu 3498"] {
        ensure!(said.contains(word), "does not say `{word}`: {said}");
    }
    // And the command helps.
    far.netns.ip("link set x1 mtu 3498")?;
    let agent = Agent::start(&balancer.netns, &config)?;
    assert_eq!(interface(&agent, "x0")?.mode, "native");
    Ok(())
}

#[test]
fn a_bridge_names_its_ports_and_nobody_is_told_to_use_what_is_there() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let balancer = &topology.balancer;
    let (bridge, port) = (balancer.interface("br9"), balancer.interface("x0"));
    link::bridge(bridge)?;
    link::veth(port, balancer.interface("x1"))?;
    port.join("br9")?;
    let mut config = Config::web(&topology, None);
    config.interfaces = vec![("br9".to_owned(), "auto".to_owned())];
    let agent = Agent::start(&balancer.netns, &config)?;
    let row = interface(&agent, "br9")?;
    let reason = row.reason.context("no reason")?;
    assert_eq!(row.mode, "generic");
    ensure!(
        reason.contains("a bridge has no native XDP") && reason.contains(": x0;"),
        "{reason}"
    );
    ensure!(!reason.contains("mode = \"auto\""), "{reason}");
    Ok(())
}

#[test]
fn frames_that_the_driver_loses_are_in_the_metrics_and_the_status() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    // A veth whose other end takes nothing from XDP: no program and no GRO.
    let (near, far) = (
        topology.balancer.interface("x0"),
        topology.client.interface("x1"),
    );
    link::veth(near, far)?;
    near.add_address("10.3.0.1/24")?;
    far.add_address("10.3.0.2/24")?;
    topology
        .client
        .netns
        .ip("route replace 10.1.0.100/32 via 10.3.0.1 dev x1")?;
    let mut config = Config::web(&topology, None);
    config
        .interfaces
        .push(("x0".to_owned(), "native".to_owned()));
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    ensure!(interface(&agent, "x0")?.driver_losses.is_empty(), "before");
    let icmp = IcmpSocket::open(&topology.client.netns)?;
    let lost = poll::until(SOON, "a loss to be told", || {
        let answer = icmp.ping(VIP, 1, Duration::from_millis(50));
        ensure!(answer.is_err(), "the answer came through");
        let lost = interface(&agent, "x0")?.driver_losses;
        ensure!(!lost.is_empty(), "none");
        Ok(lost)
    })?;
    ensure!(
        lost.keys().all(|name| name.ends_with("_xdp_tx_errors")),
        "{lost:?}"
    );
    let (name, _) = lost.first_key_value().context("none")?;
    let page = agent.http("/metrics")?.body;
    let series = format!("lb_driver_counters_total{{counter=\"{name}\",interface=\"x0\"}} ");
    ensure!(page.contains(&series), "no {series} in {page}");
    let socket = agent.socket().display().to_string();
    let shown = agent.lb(&["status", "--socket", &socket])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = format!("x0: lost by the driver: {name} ");
    ensure!(shown.contains(&line), "no {line} in {shown}");
    Ok(())
}

#[test]
fn auto_after_generic_is_native_by_a_reload_and_loud_after_a_restart() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = Config::web(&topology, None);
    let all = |config: &mut Config, mode: &str| {
        for (_, chosen) in &mut config.interfaces {
            mode.clone_into(chosen);
        }
    };
    all(&mut config, "generic");
    let mut web = Web::with_config(topology, &config)?;
    all(&mut config, "auto");
    // A killed agent leaves generic mode, and the next one keeps it.
    web.agent.kill()?;
    web.agent.write(&config)?;
    web.agent.launch()?;
    for name in ["front", "back"] {
        let row = interface(&web.agent, name)?;
        assert_eq!(row.mode, "generic");
        let reason = row.reason.context("no reason")?;
        ensure!(reason.contains("generic mode already"), "{reason}");
    }
    warned(&web.agent, "generic_mode", "generic mode already")?;
    all(&mut config, "generic");
    web.agent.reload(&config)?;
    all(&mut config, "auto");
    web.agent.reload(&config)?;
    for name in ["front", "back"] {
        let row = interface(&web.agent, name)?;
        assert_eq!((row.mode.as_str(), &row.reason), ("native", &None));
    }
    assert_eq!(web.client().sequence(10)?.len(), 10);
    Ok(())
}

#[test]
fn an_interface_made_anew_with_the_same_index_has_the_program_again() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let balancer = &topology.balancer;
    let near = balancer.interface("x0");
    balancer
        .netns
        .ip("link add x0 index 77 type veth peer name x1")?;
    let mut config = Config::web(&topology, None);
    config
        .interfaces
        .push(("x0".to_owned(), "native".to_owned()));
    let _agent = Agent::start(&balancer.netns, &config)?;
    let scratch = Scratch::new("batch")?;
    let batch = scratch.write(
        "anew",
        "link del x0\nlink add x0 index 77 type veth peer name x1\n",
    )?;
    for _ in 0..3 {
        balancer.netns.ip(&format!("-batch {}", batch.display()))?;
        poll::until(SOON, "the program to be there", || {
            ensure!(near.xdp()?.is_some(), "none");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn check_names_backends_behind_an_interface_that_is_not_configured() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = Config::web(&topology, None);
    let agent = Agent::prepare(&topology.balancer.netns, &config)?;
    let file = agent.config_file().display().to_string();
    let said = || Ok::<_, anyhow::Error>(command::said(&agent.lb(&["check", &file])?));
    ensure!(!said()?.contains("warning"), "{}", said()?);
    config.interfaces.truncate(1);
    agent.write(&config)?;
    let told = said()?;
    for word in [
        "warning: packets to web0 (10.2.0.11:80)",
        "by back,",
        ": ok: ",
    ] {
        ensure!(told.contains(word), "does not say `{word}`: {told}");
    }
    // Elsewhere nobody knows.
    config.interfaces[0].0 = "nope0".to_owned();
    agent.write(&config)?;
    ensure!(!said()?.contains("warning"), "{}", said()?);
    Ok(())
}

fn interface(agent: &Agent, name: &str) -> Result<InterfaceReport> {
    let status = agent.status()?;
    let row = status.interfaces.into_iter().find(|row| row.name == name);
    row.with_context(|| format!("no {name} in the status"))
}

/// Makes sure that a warning of this kind says these words.
fn warned(agent: &Agent, event: &str, words: &str) -> Result<()> {
    let events = agent.events()?;
    let loud = events.iter().any(|one| {
        one.field("level") == "WARN" && one.field("event") == event && one.message().contains(words)
    });
    ensure!(loud, "no warning {event} says {words}");
    Ok(())
}
