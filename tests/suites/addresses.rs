//! VIPs that the agent manages: added, announced, removed, and told apart from the operator's own.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lb_tests::agent::config::Service;
use lb_tests::agent::{Agent, Config, SOON};
use lb_tests::daemon::Daemon;
use lb_tests::http::Client;
use lb_tests::poll;
use lb_tests::scratch::Scratch;
use lb_tests::topology::{Arms, SPARE_VIP, Topology, VIP};
use lb_tests::web::Web;

#[test]
fn a_managed_vip_is_announced_to_those_who_knew_it_elsewhere() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let topology = Topology::new(arms, 1)?;
        let client = &topology.client.netns;
        // As after a failover: the client still believes the VIP at a machine that is gone.
        client.ip(&format!(
            "neigh replace {SPARE_VIP} lladdr 02:00:00:00:00:99 dev eth0 nud stale"
        ))?;
        let _agent = Agent::start(&topology.balancer.netns, &managed(&topology))?;
        let mac = topology.balancer.link().mac()?.to_string();
        poll::until(SOON, "the client to know the new place", || {
            let entry = client.ip(&format!("neigh show {SPARE_VIP}"))?;
            ensure!(entry.contains(&mac), "{entry}, expected {mac}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_reload_adds_and_removes_vips() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let one = managed(&topology);
    let mut two = one.clone().service(Service::tcp("second", 8080, "web"));
    let second = "10.1.0.102".parse()?;
    two.services[1].address.set_ip(second);
    let web = Web::with_config(topology, &one)?;
    let client = &web.topology.client.netns;
    let there = || web.topology.balancer.link().addresses();

    web.agent.reload(&two)?;
    web.wait_until_all_serve()?;
    // First the agent asks whether another host has it.
    poll::until(SOON, "the VIP to be there", || {
        let addresses = there()?;
        ensure!(addresses.contains(&second.to_string()), "{addresses:?}");
        Ok(())
    })?;
    web.agent.reload(&one)?;
    poll::until(SOON, "the VIP to be gone", || {
        let addresses = there()?;
        ensure!(!addresses.contains(&second.to_string()), "{addresses:?}");
        Ok(())
    })?;
    ensure!(
        there()?.contains(&SPARE_VIP.to_string()),
        "the other went too: {:?}",
        there()?
    );
    assert_eq!(Client::new(client, (SPARE_VIP, 80)).get("/")?.status, 200);

    web.agent.reload(&two)?;
    web.wait_until_all_serve()?;
    poll::until(SOON, "an answer from the VIP", || {
        let answer = Client::new(client, (second, 8080)).get("/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })?;
    web.agent.reload(&one)?;
    ensure!(
        there()?.contains(&second.to_string()),
        "it has a flow, which would not find it: {:?}",
        there()?
    );
    Ok(())
}

#[test]
fn an_address_that_was_there_before_stays_after_the_end() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = Config::web(&topology, None);
    config.manage_addresses = true;
    let mut web = Web::with_config(topology, &config)?;
    web.agent.terminate()?;
    let addresses = web.topology.balancer.link().addresses()?;
    ensure!(
        addresses.contains(&VIP.to_string()),
        "{VIP} was the operator's: {addresses:?}"
    );
    Ok(())
}

#[test]
fn a_managed_vip_that_somebody_removed_comes_back() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let config = managed(&topology);
    let web = Web::with_config(topology, &config)?;
    let link = web.topology.balancer.link();
    link.netns
        .ip(&format!("address del {SPARE_VIP}/32 dev {}", link.name))?;
    poll::until(SOON * 3, "the VIP to be back", || {
        let addresses = link.addresses()?;
        ensure!(addresses.contains(&SPARE_VIP.to_string()), "{addresses:?}");
        Ok(())
    })
}

#[test]
fn a_vip_that_another_host_answers_for_is_not_taken_until_that_host_gives_it_up() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let topology = Topology::new(arms, 1)?;
        let client = &topology.client;
        // Linux answers ARP for each of its addresses on every interface.
        client
            .netns
            .ip(&format!("address add {SPARE_VIP}/32 dev lo"))?;
        let agent = Agent::start(&topology.balancer.netns, &managed(&topology))?;
        let link = topology.balancer.link();
        let addresses = link.addresses()?;
        ensure!(!addresses.contains(&SPARE_VIP.to_string()), "{addresses:?}");
        let told = first_reason(&agent)?;
        let mac = client.link().mac()?.to_string();
        for word in [&SPARE_VIP.to_string(), "another host has it", &mac] {
            ensure!(told.contains(word), "no `{word}` in `{told}`");
        }
        let events = agent.events()?;
        let refused = events
            .iter()
            .filter(|event| event.field("event") == "vip_refused");
        assert_eq!(refused.count(), 1);

        client
            .netns
            .ip(&format!("address del {SPARE_VIP}/32 dev lo"))?;
        poll::until(SOON * 6, "the VIP to be taken", || {
            let addresses = link.addresses()?;
            ensure!(addresses.contains(&SPARE_VIP.to_string()), "{addresses:?}");
            assert_eq!(first_reason(&agent)?, "");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_vip_that_is_an_end_of_an_interfaces_network_is_not_taken() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = managed(&topology);
    for (port, last) in [(81, 0), (82, 255), (83, 254)] {
        let mut service = Service::tcp(&format!("end{last}"), port, "web");
        service.address.set_ip([10, 1, 0, last].into());
        config = config.service(service);
    }
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    let addresses = topology.balancer.link().addresses()?;
    let there = |last: u8| addresses.contains(&format!("10.1.0.{last}"));
    ensure!(
        there(101) && there(254) && !there(0) && !there(255),
        "{addresses:?}"
    );
    let told = first_reason(&agent)?;
    for word in [
        "10.1.0.0 is not taken",
        "network of 10.1.0.1/24",
        "(and 1 more)",
    ] {
        ensure!(told.contains(word), "no `{word}` in `{told}`");
    }
    // Each service of such a VIP says why nobody comes to it.
    for service in agent.status()?.services {
        let is_end = ["end0", "end255"].contains(&service.name.as_str());
        let problem = service.problem.unwrap_or_default();
        assert_eq!(
            problem.starts_with("its VIP is not taken: it is the "),
            is_end,
            "{}: {problem}",
            service.name
        );
    }
    Ok(())
}

#[test]
fn each_of_a_thousand_vips_is_announced() -> Result<()> {
    const VIPS: u16 = 1_000;
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = Config::web(&topology, None);
    config.manage_addresses = true;
    config.services = (1..=VIPS)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let mut service = Service::tcp(&format!("vip{number}"), 80, "web");
            service.address.set_ip([10, 9, high, low].into());
            service
        })
        .collect();
    let scratch = Scratch::new("arp")?;
    let client = &topology.client.netns;
    let command = client.words("tcpdump -l -n -i eth0 -Q in -B 16384 arp");
    let heard = Daemon::start(command, &scratch.file("tcpdump.log"))?;
    heard.wait_until(SOON, "listening", || {
        ensure!(heard.log()?.contains("listening on"), "it does not listen");
        Ok(())
    })?;
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    poll::until(SOON * 3, "three announcements of each", || {
        let log = heard.log()?;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for address in log.lines().filter_map(announced) {
            *times.entry(address).or_default() += 1;
        }
        let thrice = times.values().filter(|times| **times == 3).count();
        ensure!(
            thrice == usize::from(VIPS),
            "{thrice} of {VIPS}, {} at all",
            times.len()
        );
        Ok(())
    })?;
    let events = agent.events()?;
    let lost = events
        .iter()
        .find(|event| event.message().contains("can't be announced"));
    ensure!(lost.is_none(), "{lost:?}");
    Ok(())
}

/// The address that a line of tcpdump says is announced: `who-has` and `tell` name the same.
fn announced(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split([' ', ',']).collect();
    let after = |word| {
        let at = words.iter().position(|one| *one == word)?;
        words.get(at + 1).copied()
    };
    let tell = || after("tell").filter(|sender| Some(*sender) == after("who-has"));
    after("Announcement").or_else(tell)
}

/// What the status says of the first interface, where VIPs are.
fn first_reason(agent: &Agent) -> Result<String> {
    let interfaces = agent.status()?.interfaces;
    let first = interfaces.into_iter().next();
    Ok(first
        .and_then(|interface| interface.reason)
        .unwrap_or_default())
}

fn managed(topology: &Topology) -> Config {
    let mut config = Config::web(topology, None);
    config.manage_addresses = true;
    config.services[0].address.set_ip(SPARE_VIP);
    config
}
