//! VIPs that the agent manages: added, announced, removed, and told apart from the operator's own.

use anyhow::{Result, ensure};
use lb_tests::agent::config::Service;
use lb_tests::agent::{Agent, Config, SOON};
use lb_tests::http::Client;
use lb_tests::poll;
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
    ensure!(there()?.contains(&second.to_string()), "{:?}", there()?);
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
    assert_eq!(Client::new(client, (second, 8080)).get("/")?.status, 200);
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

fn managed(topology: &Topology) -> Config {
    let mut config = Config::web(topology, None);
    config.manage_addresses = true;
    config.services[0].address.set_ip(SPARE_VIP);
    config
}
