//! The agent comes and goes; packets don't care. What it leaves is taken down by `lb detach`, by SIGTERM nothing is left.

use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use lb_tests::agent::config::{Check, Service};
use lb_tests::agent::{Agent, Config, binary};
use lb_tests::http::load::Load;
use lb_tests::http::{self, Client};
use lb_tests::kernel;
use lb_tests::poll::{self, SOON};
use lb_tests::topology::{Arms, SPARE_VIP, Topology};
use lb_tests::web::Web;
use rustix::process::Signal;

#[test]
fn an_agent_killed_and_started_again_under_load_costs_no_request_two_arm() -> Result<()> {
    killed_and_started(Arms::Two)
}

#[test]
fn an_agent_killed_and_started_again_under_load_costs_no_request_one_arm() -> Result<()> {
    killed_and_started(Arms::One)
}

fn killed_and_started(arms: Arms) -> Result<()> {
    let mut web = Web::start(Topology::alone(arms, 3)?, Some(Check::tcp()))?;
    let links = kernel::links_pinned_in(&web.agent.scratch().bpffs())?;
    let sessions = Load::sessions(&web.client(), 6, Duration::from_millis(10));
    let load = Load::constant(&web.client(), 200);
    requests_since(&load, SystemTime::UNIX_EPOCH, 100)?;

    web.agent.kill()?;
    let killed = SystemTime::now();
    requests_since(&load, killed, 200)?;
    web.agent.launch()?;
    let ready = SystemTime::now();
    requests_since(&load, ready, 200)?;

    let status = web.agent.status()?;
    assert!(status.agent.adopted, "{:#?}", status.agent);
    let kept = kernel::links_pinned_in(&web.agent.scratch().bpffs())?;
    let ids = |links: &[kernel::Link]| {
        links
            .iter()
            .map(|link| (link.pin.clone(), link.id))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&kept), ids(&links), "the next start made other links");
    for exchanges in [load.stop()?, sessions.stop()?] {
        let failures = http::failures(&exchanges);
        assert!(
            failures.is_empty(),
            "agent dead from {killed:?} to {ready:?}: {failures:#?}"
        );
    }
    Ok(())
}

#[test]
fn an_agent_that_starts_again_finds_its_flows_and_counts_them_at_once() -> Result<()> {
    let topology = Topology::new(Arms::Two, 3)?;
    let mut config = Config::web(&topology, None);
    // The longer a look at the table takes, the longer it is until the next.
    config.flow_entries = Some(4_096);
    let mut web = Web::with_config(topology, &config)?;
    let sessions = Load::sessions(&web.client(), 6, Duration::from_millis(50));
    requests_since(&sessions, SystemTime::UNIX_EPOCH, 30)?;
    let flows = |web: &Web| -> Result<_> {
        let status = web.agent.status()?;
        let service = &status.services[0];
        let backends = service.backends.iter().map(|backend| backend.active_flows);
        Ok((
            service.active_flows,
            backends.collect::<Vec<_>>(),
            service.traffic.new_flows,
            status.flow_table.entries,
        ))
    };
    let expected = (6, vec![2; 3], 6, 12);
    // The agent looks at the table now and then.
    poll::until(SOON, "six flows to be counted", || {
        let seen = flows(&web)?;
        ensure!(seen == expected, "{seen:?}");
        Ok(())
    })?;
    for _ in 0..2 {
        web.agent.kill()?;
        requests_since(&sessions, SystemTime::now(), 30)?;
        web.agent.launch()?;
        assert_eq!(flows(&web)?, expected, "the first status of the next agent");
        requests_since(&sessions, SystemTime::now(), 30)?;
        assert_eq!(flows(&web)?, expected, "no flow was made again");
    }
    let failures = http::failures(&sessions.stop()?);
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

#[test]
fn an_agent_that_hangs_costs_no_request() -> Result<()> {
    let check = Check::tcp().patient();
    let longer_than_a_check = check.interval + check.timeout;
    let web = Web::start(Topology::new(Arms::Two, 2)?, Some(check))?;
    let load = Load::constant(&web.client(), 200);
    web.agent.signal(Signal::STOP)?;
    let stopped = SystemTime::now();
    poll::until(SOON, "200 requests, and the time of two checks", || {
        let (ended, passed) = (load.since(stopped).len(), stopped.elapsed()?);
        ensure!(
            ended >= 200 && passed > longer_than_a_check,
            "{ended} ended in {passed:?}"
        );
        Ok(())
    })?;
    web.agent.signal(Signal::CONT)?;
    requests_since(&load, SystemTime::now(), 100)?;
    let failures = http::failures(&load.stop()?);
    assert!(failures.is_empty(), "{failures:#?}");
    let checks = web.agent.wait_for_state("www", "web0", "up")?.checks;
    assert_eq!(
        checks.map(|checks| checks.failed),
        Some(0),
        "its own pause is not held against a backend"
    );
    Ok(())
}

#[test]
fn a_backend_that_died_while_no_agent_ran_is_taken_out_by_the_next() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::Two, 2)?, Some(Check::tcp()))?;
    web.agent.kill()?;
    web.servers[0].kill()?;
    web.agent.launch()?;
    web.agent.wait_for_state("www", "web0", "down")?;
    let exchanges = web.client().sequence(10)?;
    assert_eq!(http::tally(&exchanges), [("web1".to_owned(), 10)].into());
    Ok(())
}

#[test]
fn a_configuration_that_changed_while_no_agent_ran_is_in_force_after_the_next_start() -> Result<()>
{
    let topology = Topology::new(Arms::Two, 2)?;
    let mut config = Config::web(&topology, None);
    let mut web = Web::with_config(topology, &config)?;
    let session = Load::sessions(&web.client(), 2, Duration::from_millis(10));
    requests_since(&session, SystemTime::UNIX_EPOCH, 10)?;
    web.agent.kill()?;
    config.pools[0].backends.remove(0);
    config.services.push(Service::tcp("other", 8080, "web"));
    web.agent.write(&config)?;
    web.agent.launch()?;
    assert_eq!(
        http::tally(&web.client().sequence(10)?),
        [("web1".to_owned(), 10)].into()
    );
    let other = Client::new(&web.topology.client.netns, (lb_tests::topology::VIP, 8080));
    assert_eq!(other.get("/")?.body, "web1");
    let failures = http::failures(&session.stop()?);
    assert!(failures.is_empty(), "flows that were there: {failures:#?}");
    Ok(())
}

#[test]
fn detach_after_a_kill_leaves_nothing() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let mut web = managed(arms)?;
        web.agent.kill()?;
        ensure!(
            !web.agent.scratch().pins()?.is_empty(),
            "a killed agent should leave its pins"
        );
        assert_eq!(
            spare_client(&web).get("/")?.status,
            200,
            "traffic flows without an agent"
        );
        web.agent.detach()?;
        nothing_left(&web, true)?;
    }
    Ok(())
}

#[test]
fn detach_in_another_network_namespace_changes_nothing_and_says_where() -> Result<()> {
    let mut web = managed(Arms::Two)?;
    web.agent.kill()?;
    let pins = web.agent.scratch().pins()?;
    let config = web.agent.config_file().display().to_string();
    // This process is in none of the run's namespaces.
    let output = Command::new(binary()?)
        .args(["detach", "--config", &config])
        .output()?;
    let said = lb_tests::command::said(&output);
    ensure!(output.status.code() == Some(1), "{output:?}");
    for word in [
        "front",
        "another network namespace",
        "help: ",
        "ip netns exec",
    ] {
        ensure!(said.contains(word), "no `{word}` in {said}");
    }
    assert_eq!(web.agent.scratch().pins()?, pins);
    assert_eq!(spare_client(&web).get("/")?.status, 200);
    web.agent.detach()?;
    nothing_left(&web, true)
}

#[test]
fn detach_with_nothing_there_says_so() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    let config = agent.config_file().display().to_string();
    let output = agent.lb(&["detach", "--config", &config])?;
    let said = lb_tests::command::said(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.starts_with("nothing to detach: there is no instance "),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn sigterm_leaves_nothing() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let mut web = managed(arms)?;
        let ended = web.agent.terminate()?;
        assert!(ended.success(), "{ended}");
        nothing_left(&web, true)?;
        assert!(!web.agent.socket().exists(), "the socket stays");
    }
    Ok(())
}

#[test]
fn addresses_that_the_operator_set_stay_after_sigterm() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    web.agent.terminate()?;
    let addresses = web.topology.balancer.link().addresses()?;
    assert!(
        addresses.contains(&"10.1.0.100".to_owned()),
        "{addresses:?}"
    );
    nothing_left(&web, false)
}

#[test]
fn an_agent_can_be_started_again_after_sigterm() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    web.agent.terminate()?;
    web.agent.launch()?;
    web.wait_until_all_serve()?;
    assert!(
        !web.agent.status()?.agent.adopted,
        "there was nothing to adopt"
    );
    assert_eq!(http::tally(&web.client().sequence(10)?).len(), 2);
    Ok(())
}

/// A site at a VIP that only the agent adds.
fn managed(arms: Arms) -> Result<Web> {
    let topology = Topology::new(arms, 2)?;
    let mut config = Config::web(&topology, None);
    config.manage_addresses = true;
    config.services[0].address.set_ip(SPARE_VIP);
    let web = Web::with_config(topology, &config)?;
    let addresses = web.topology.balancer.link().addresses()?;
    ensure!(
        addresses.contains(&SPARE_VIP.to_string()),
        "the agent did not add {SPARE_VIP}: {addresses:?}"
    );
    assert_eq!(spare_client(&web).get("/")?.status, 200);
    Ok(web)
}

fn spare_client(web: &Web) -> Client {
    Client::new(&web.topology.client.netns, (SPARE_VIP, 80))
}

fn nothing_left(web: &Web, spare_vip: bool) -> Result<()> {
    let pins = web.agent.scratch().pins()?;
    assert!(pins.is_empty(), "pins stay: {pins:?}");
    for name in web.topology.balancer_interfaces() {
        let interface = web.topology.balancer.interface(name);
        // A link goes when its last reference does, which the kernel may put off by a moment.
        poll::until(
            SOON,
            format!("{name} without a program"),
            || match interface.xdp()? {
                None => Ok(()),
                Some(xdp) => anyhow::bail!("{xdp}"),
            },
        )?;
        let addresses = interface.addresses()?;
        if spare_vip {
            assert!(
                !addresses.contains(&SPARE_VIP.to_string()),
                "{SPARE_VIP} stays on {name}: {addresses:?}"
            );
        }
    }
    Ok(())
}

/// Waits until so many requests that started at `from` or later have ended.
fn requests_since(load: &Load, from: SystemTime, count: usize) -> Result<()> {
    poll::until(SOON, format!("{count} requests"), || {
        let ended = load.since(from).len();
        ensure!(ended >= count, "{ended} ended");
        Ok(())
    })
}
