//! What goes wrong is said with its place and its help, and the data plane keeps its last good state through it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lb_tests::agent::{Agent, Config, Failure, SOON};
use lb_tests::command;
use lb_tests::echo::Listener;
use lb_tests::http;
use lb_tests::http::load::Load;
use lb_tests::link;
use lb_tests::pass::XdpPass;
use lb_tests::poll;
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

/// An address that somebody else listens at.
const TAKEN: &str = "127.0.0.1:9851";

#[test]
fn an_interface_that_does_not_exist_is_named() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut config = Config::web(&topology, None);
    config
        .interfaces
        .push(("nope0".to_owned(), "auto".to_owned()));
    let mut agent = Agent::prepare(&topology.balancer.netns, &config)?;
    let failure = agent.run_to_failure()?;
    said(&failure, &["nope0", "ip link"])?;
    nothing_left(&agent, &topology)
}

#[test]
fn a_second_agent_of_the_same_instance_is_refused() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    let load = Load::constant(&web.client(), 200);
    let config = web.agent.config_file().display().to_string();
    let output = web.agent.lb(&["run", "--config", &config])?;
    let words = command::said(&output);
    ensure!(
        output.status.code() == Some(1),
        "{}\n{words}",
        output.status
    );
    let socket = web.agent.socket().display().to_string();
    for word in ["another agent", &socket, "help: "] {
        ensure!(words.contains(word), "does not say `{word}`:\n{words}");
    }
    unharmed(&web, load)
}

#[test]
fn a_second_agent_of_another_instance_on_the_same_interface_is_refused() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    let load = Load::constant(&web.client(), 200);
    let mut config = Config::web(&web.topology, None);
    config.instance = Some("second".to_owned());
    config.metrics = None;
    let mut second = Agent::prepare(web.agent.netns(), &config)?;
    let failure = second.run_to_failure()?;
    said(&failure, &["front", "XDP"])?;
    ensure!(
        second.scratch().pins()?.is_empty(),
        "pins of the one refused stay"
    );
    unharmed(&web, load)
}

#[test]
fn another_xdp_program_on_the_interface_is_left_alone_and_named() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let _other = XdpPass::attach(topology.balancer.link())?;
    let before = topology.balancer.link().xdp()?;
    let mut agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    let failure = agent.run_to_failure()?;
    said(&failure, &["eth0", "XDP"])?;
    assert_eq!(
        topology.balancer.link().xdp()?,
        before,
        "the other's program was touched"
    );
    let pins = agent.scratch().pins()?;
    assert!(pins.is_empty(), "pins stay: {pins:?}");
    Ok(())
}

#[test]
fn without_privilege_the_missing_capabilities_are_named() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let config = Config::web(&topology, None);
    let without = "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs";
    let mut agent = Agent::prepare(&topology.balancer.netns, &config)?.wrapped(without);
    let failure = agent.run_to_failure()?;
    said(&failure, &["CAP_BPF", "CAP_NET_ADMIN"])?;
    nothing_left(&agent, &topology)
}

#[test]
fn a_pin_root_that_is_no_bpffs_is_told_with_the_mount_command() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    let plain = agent.scratch().file("plain");
    std::fs::create_dir(&plain)?;
    let bpffs = agent.scratch().bpffs().display().to_string();
    agent.write_text(&agent.text()?.replace(&bpffs, &plain.display().to_string()))?;
    let failure = agent.run_to_failure()?;
    said(&failure, &[&plain.display().to_string(), "mount -t bpf"])?;
    nothing_left(&agent, &topology)
}

#[test]
fn what_a_start_would_refuse_a_reload_refuses_too() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let good = Config::web(&topology, None);
    let web = Web::with_config(topology, &good)?;
    let load = Load::constant(&web.client(), 200);
    let balancer = &web.topology.balancer;
    let _taken = Listener::start(&balancer.netns, TAKEN.parse::<std::net::SocketAddr>()?)?;
    link::veth(balancer.interface("x0"), balancer.interface("x1"))?;
    let _other = XdpPass::attach(balancer.interface("x0"))?;

    let metrics = Config {
        metrics: Some(TAKEN.to_owned()),
        ..good.clone()
    };
    let instance = Config {
        instance: Some("other".to_owned()),
        ..good.clone()
    };
    let more = |name: &str| {
        let mut config = good.clone();
        config.interfaces.push((name.to_owned(), "auto".to_owned()));
        config
    };
    let refused = [
        (metrics, TAKEN),
        (instance, "instance"),
        (more("nope0"), "nope0"),
        (more("x0"), "x0"),
    ];
    for (config, word) in refused {
        web.agent.write(&config)?;
        let socket = web.agent.socket().display().to_string();
        let output = web.agent.lb(&["reload", "--socket", &socket])?;
        let words = command::said(&output);
        ensure!(
            output.status.code() == Some(1),
            "{word}: {}\n{words}",
            output.status
        );
        ensure!(
            words.contains(word) && words.contains("help: "),
            "{word}: {words}"
        );
        assert_eq!(
            web.agent.http("/healthz")?.status,
            200,
            "{word}: the metrics are where they were"
        );
        let names: Vec<_> = web
            .agent
            .status()?
            .interfaces
            .into_iter()
            .map(|row| row.name)
            .collect();
        assert_eq!(names, ["front", "back"], "{word}");
    }
    unharmed(&web, load)
}

#[test]
fn a_file_that_is_not_there_is_named() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    std::fs::remove_file(agent.config_file())?;
    said(&agent.run_to_failure()?, &["lb.toml"])
}

#[test]
fn status_without_an_agent_says_what_to_start() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    let socket = agent.socket().display().to_string();
    let output = agent.lb(&["status", "--socket", &socket])?;
    let words = command::said(&output);
    ensure!(
        output.status.code() == Some(1),
        "{}\n{words}",
        output.status
    );
    ensure!(
        words.contains(&socket) && words.contains("lb run"),
        "{words}"
    );
    Ok(())
}

#[test]
fn check_names_file_line_value_and_mend_of_every_mistake() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    let good = agent.text()?;
    let mistakes = [
        (
            good.replace("manage_addresses", "manage_adresses"),
            "manage_adresses",
        ),
        (good.replace("10.2.0.11:80", "10.2.0.11:70000"), "70000"),
        (good.replace("10.1.0.100:80", "[fd00::1]:80"), "fd00::1"),
        (good.replace("name = \"web1\"", "name = \"web0\""), "web0"),
        (
            good.replace("protocol = \"tcp\"", "protocol = \"sctp\""),
            "sctp",
        ),
        (format!("{good}\n[[pool]]\nname = \"empty\"\n"), "empty"),
        (
            format!(
                "{good}\n[[service]]\nname = \"two\"\naddress = \"10.1.0.100:80\"\nprotocol = \"tcp\"\npool = \"web\"\n"
            ),
            "10.1.0.100:80",
        ),
    ];
    let file = agent.config_file().display().to_string();
    for (text, place) in mistakes {
        agent.write_text(&text)?;
        let output = agent.lb(&["check", &file])?;
        let words = command::said(&output);
        ensure!(
            output.status.code() == Some(1),
            "{place}: {}\n{words}",
            output.status
        );
        // The last line that has it: of two of a kind the second is the mistake.
        let line = text
            .lines()
            .zip(1..)
            .filter(|(line, _)| line.contains(place))
            .last();
        let (_, line) = line.with_context(|| format!("no {place} in\n{text}"))?;
        ensure!(
            words.contains(&format!("lb.toml:{line}:")),
            "{place} (line {line}): {words}"
        );
        ensure!(
            words.contains(place) && words.contains("help: "),
            "{place}: {words}"
        );
    }
    agent.write_text(&good)?;
    let output = agent.lb(&["check", &file])?;
    ensure!(output.status.success(), "{}", command::said(&output));
    Ok(())
}

#[test]
fn an_interface_that_goes_away_and_comes_back_is_attached_again() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let mut web = Web::start(Topology::new(arms, 2)?, None)?;
        let name = web
            .topology
            .balancer_interfaces()
            .last()
            .copied()
            .unwrap_or_default();
        web.topology.unplug()?;
        let row = poll::until(SOON, format!("{name} to be detached"), || {
            let row = interface(&web, name)?;
            ensure!(row.mode == "detached", "{row:?}");
            Ok(row)
        })?;
        ensure!(row.reason.is_some() && row.ifindex.is_none(), "{row:?}");
        web.agent.check_alive()?;
        web.topology.replug()?;
        poll::until(SOON, format!("{name} to be attached again"), || {
            let row = interface(&web, name)?;
            ensure!(row.mode == "native" && row.ifindex.is_some(), "{row:?}");
            Ok(())
        })?;
        web.wait_until_all_serve()?;
        let client = web.client().patience(Duration::from_secs(2));
        let tally = poll::until(SOON, "answers of both servers", || {
            let tally = http::tally(&client.sequence(4)?);
            ensure!(
                tally.len() == 2 && tally.keys().all(|who| who.starts_with("web")),
                "{tally:?}"
            );
            Ok(tally)
        })?;
        assert_eq!(tally.values().sum::<usize>(), 4, "{tally:?}");
    }
    Ok(())
}

fn interface(web: &Web, name: &str) -> Result<lb_userspace::status::InterfaceReport> {
    let status = web.agent.status()?;
    let row = status.interfaces.into_iter().find(|row| row.name == name);
    row.ok_or_else(|| anyhow::anyhow!("no {name} in the status"))
}

/// It failed with status 1 and said all of these.
fn said(failure: &Failure, words: &[&str]) -> Result<()> {
    ensure!(failure.status.code() == Some(1), "{failure:?}");
    for word in words {
        ensure!(
            failure.said.contains(word),
            "does not say `{word}`:\n{}",
            failure.said
        );
    }
    ensure!(!failure.said.contains("panicked"), "{}", failure.said);
    Ok(())
}

/// A start that failed took back what it had done.
fn nothing_left(agent: &Agent, topology: &Topology) -> Result<()> {
    ensure!(!agent.socket().exists(), "the socket stays");
    if agent.scratch().bpffs().exists() {
        let pins = agent.scratch().pins()?;
        ensure!(pins.is_empty(), "pins stay: {pins:?}");
    }
    for name in topology.balancer_interfaces() {
        let xdp = topology.balancer.interface(name).xdp()?;
        ensure!(xdp.is_none(), "{name}: {xdp:?}");
    }
    Ok(())
}

/// The load under way goes on for 100 requests more, and none failed.
fn unharmed(web: &Web, load: Load) -> Result<()> {
    let from = SystemTime::now();
    poll::until(SOON, "100 requests", || {
        let ended = load.since(from).len();
        ensure!(ended >= 100, "{ended} ended");
        Ok(())
    })?;
    web.agent.check_alive()?;
    let failures = http::failures(&load.stop()?);
    ensure!(failures.is_empty(), "{failures:#?}");
    Ok(())
}
