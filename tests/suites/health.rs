//! Health checks against servers that misbehave, each in its own way, and against what the configuration says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::agent::config::{Backend, Check, Pool, Service};
use lb_tests::agent::{Agent, Config, SOON};
use lb_tests::http;
use lb_tests::misbehave::{Manner, Server};
use lb_tests::nginx::Nginx;
use lb_tests::poll;
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

/// Manners that no check may take for a good server, and a word of the reason that it has to give.
const BAD: [(Manner, &str); 8] = [
    (Manner::Silent, "timed out"),
    (Manner::Slow, "timed out"),
    (Manner::HalfLineThenSilent, "timed out"),
    (Manner::Garbage, "not HTTP"),
    (Manner::HalfLine, "closed"),
    (Manner::Closes, "closed"),
    (Manner::Endless, "larger"),
    (Manner::EndlessLine, "larger"),
];

#[test]
fn every_way_to_misbehave_is_down_for_its_reason_and_the_good_server_is_up() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let host = &topology.backends[0];
    let mut pool = Pool::new("web", &[], 0).check(Check::http());
    let mut servers = Vec::new();
    for (port, (manner, _)) in (8_000..).zip(BAD) {
        servers.push(Server::start(host, port, manner)?);
        pool.backends.push(backend(
            &format!("{manner:?}"),
            servers.last().context("no server")?,
        ));
    }
    let good = Server::start(host, 8_100, Manner::Well)?;
    pool.backends.push(backend("good", &good));
    let hasty = Server::start(host, 8_101, Manner::AnswersFirst)?;
    pool.backends.push(backend("hasty", &hasty));
    let config = Config::new(&topology)
        .pool(pool)
        .service(Service::tcp("www", 80, "web"));
    let agent = Agent::start(&topology.balancer.netns, &config)?;

    agent.wait_for_state("www", "good", "up")?;
    agent.wait_for_state("www", "hasty", "up")?;
    for (manner, word) in BAD {
        down_because(&agent, "www", &format!("{manner:?}"), &[word])?;
    }
    descriptors_stay_few(&agent, &servers)
}

#[test]
fn a_status_that_is_not_expected_is_told() -> Result<()> {
    let topology = Topology::new(Arms::One, 2)?;
    let check = |path: &str, expect: &str| Check {
        more: format!("path = \"{path}\"\nexpect = [{expect}]\n"),
        ..Check::http()
    };
    let _servers = Nginx::on_each(&topology.backends)?;
    let config = Config::new(&topology)
        .pool(
            Pool::new("strict", &topology.backends, 80).check(check("/status/503", "\"200-299\"")),
        )
        .pool(
            Pool::new("odd", &topology.backends, 80)
                .check(check("/status/503", "\"204\", \"500-503\"")),
        )
        .pool(Pool::new("exact", &topology.backends, 80).check(check("/status/204", "\"204\"")))
        .service(Service::tcp("strict", 81, "strict"))
        .service(Service::tcp("odd", 82, "odd"))
        .service(Service::tcp("exact", 83, "exact"));
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    down_because(&agent, "strict", "strict0", &["503", "200-299"])?;
    agent.wait_for_state("odd", "odd1", "up")?;
    agent.wait_for_state("exact", "exact0", "up")?;
    Ok(())
}

#[test]
fn a_check_may_go_to_another_port() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let _agents = topology
        .backends
        .iter()
        .map(|host| Server::start(host, 9_999, Manner::Well))
        .collect::<Result<Vec<_>>>()?;
    let check = Check {
        more: "port = 9999\n".to_owned(),
        ..Check::http()
    };
    // Nobody serves at port 80, and still both are up: the check says so.
    let config = Config::web(&topology, Some(check));
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    for backend in ["web0", "web1"] {
        agent.wait_for_state("www", backend, "up")?;
    }
    Ok(())
}

#[test]
fn a_single_failure_below_fall_takes_nobody_out() -> Result<()> {
    // A server that is away for less than `fall` checks: the counts show failures, the state does not change.
    let check = Check {
        fall: 1_000,
        ..Check::tcp()
    };
    let mut web = Web::start(Topology::new(Arms::Two, 2)?, Some(check))?;
    web.servers[0].kill()?;
    let failed = |agent: &Agent| -> Result<u64> {
        Ok(agent
            .backend("www", "web0")?
            .checks
            .context("not checked")?
            .failed)
    };
    poll::until(SOON, "five failed checks", || {
        let count = failed(&web.agent)?;
        ensure!(count >= 5, "{count}");
        Ok(())
    })?;
    web.servers[0].restart()?;
    let row = web.agent.backend("www", "web0")?;
    assert_eq!(
        (row.state.as_str(), row.in_rotation),
        ("up", true),
        "{row:?}"
    );
    assert_eq!(http::tally(&web.client().sequence(10)?), even(5));
    Ok(())
}

#[test]
fn a_server_that_stops_answering_is_found_though_its_port_is_open() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let good = Server::start(&topology.backends[0], 80, Manner::Well)?;
    let turning = Server::start(&topology.backends[1], 80, Manner::Well)?;
    let agent = Agent::start(
        &topology.balancer.netns,
        &Config::web(&topology, Some(Check::http())),
    )?;
    agent.wait_for_state("www", "web1", "up")?;
    drop(turning);
    let _hung = poll::until(SOON, "the port to be free", || {
        Server::start(&topology.backends[1], 80, Manner::Silent)
    })?;
    let row = agent.wait_for_state("www", "web1", "down")?;
    ensure!(
        row.reason.contains("timed out") || row.reason.contains("refused"),
        "{row:?}"
    );
    ensure!(
        good.connections() > 3,
        "{} checks of the good one",
        good.connections()
    );
    Ok(())
}

#[test]
fn two_thousand_new_checks_take_no_healthy_server_out() -> Result<()> {
    const BACKENDS: u16 = 2_000;
    let topology = Topology::alone(Arms::Two, 1)?;
    let host = &topology.backends[0];
    let _server = Nginx::start(host, "web0")?;
    // Every address of the network is the one host's, behind one next hop.
    host.netns.ip("route add local 10.3.0.0/16 dev lo")?;
    let balancer = &topology.balancer.netns;
    balancer.ip(&format!("route add 10.3.0.0/16 via {}", host.address))?;
    let mut config = Config::web(&topology, None);
    let many = (1..=BACKENDS).map(|number| {
        let [high, low] = number.to_be_bytes();
        Backend {
            name: format!("many{number}"),
            address: (Ipv4Addr::new(10, 3, high, low), 80).into(),
            weight: 1,
        }
    });
    config.pools[0].backends.extend(many);
    config.pools[0].check = Some(Check {
        interval: Duration::from_secs(10),
        timeout: Duration::from_millis(500),
        ..Check::http()
    });
    let agent = Agent::start(balancer, &config)?;
    poll::until(SOON * 6, "all to be up", || {
        let up = up(&agent)?;
        ensure!(up == usize::from(BACKENDS) + 1, "{up} are up");
        Ok(())
    })?;
    let down = agent
        .events()?
        .iter()
        .filter(|event| event.field("state") == "down")
        .count();
    assert_eq!(down, 0, "healthy servers were called down");
    Ok(())
}

fn up(agent: &Agent) -> Result<usize> {
    let services = agent.status()?.services;
    let backends = services.iter().flat_map(|service| &service.backends);
    Ok(backends.filter(|backend| backend.state == "up").count())
}

/// Waits until a backend is down and all of these words are in the reason. Where others keep the CPUs busy, a check may run
/// out of time before it sees what is wrong; the next one sees it.
fn down_because(agent: &Agent, service: &str, backend: &str, words: &[&str]) -> Result<()> {
    poll::until(SOON, format!("{backend} to be down: {words:?}"), || {
        let row = agent.backend(service, backend)?;
        let because = words.iter().all(|word| row.reason.contains(word));
        ensure!(
            row.state == "down" && !row.in_rotation && because,
            "{row:?}"
        );
        Ok(())
    })
}

fn backend(name: &str, server: &Server) -> Backend {
    Backend {
        name: name.to_owned(),
        address: server.address().into(),
        weight: 1,
    }
}

fn even(each: usize) -> BTreeMap<String, usize> {
    [("web0".to_owned(), each), ("web1".to_owned(), each)].into()
}

/// Checks that never end well must still end: the agent's descriptors don't grow with their number.
fn descriptors_stay_few(agent: &Agent, servers: &[Server]) -> Result<()> {
    let checks = || servers.iter().map(Server::connections).sum::<u64>();
    let pid = agent.status()?.agent.pid;
    let descriptors = || -> Result<usize> {
        Ok(Path::new("/proc")
            .join(pid.to_string())
            .join("fd")
            .read_dir()?
            .count())
    };
    let (checks_before, descriptors_before) = (checks(), descriptors()?);
    poll::until(SOON, "200 more checks", || {
        let more = checks() - checks_before;
        ensure!(more >= 200, "{more}");
        Ok(())
    })?;
    let now = descriptors()?;
    ensure!(
        now <= descriptors_before + 2 * servers.len(),
        "{descriptors_before} descriptors, then {now}"
    );
    Ok(())
}
