//! UDP: a real DNS server behind the VIP, asked by dig.

use std::collections::BTreeSet;

use anyhow::Result;
use lb_tests::agent::config::{Check, Pool, Service};
use lb_tests::agent::{Agent, Config};
use lb_tests::dns::{self, Dns, dig};
use lb_tests::http::Client;
use lb_tests::nginx::Nginx;
use lb_tests::topology::{Arms, CLIENT, Topology, VIP};

#[test]
fn every_source_port_is_a_flow_and_flows_take_turns() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let topology = Topology::new(arms, 3)?;
        let _servers = Dns::on_each(&topology.backends)?;
        let _agent = Agent::start(&topology.balancer.netns, &dns_config(&topology))?;
        let ask = |port| dig(&topology.client.netns, VIP, Some((CLIENT, port)));

        let first: Vec<_> = (40_000..40_009).map(ask).collect::<Result<_>>()?;
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
        assert_eq!(
            first[..3],
            first[3..6],
            "{arms:?}: flows take turns: {first:?}"
        );
        assert_eq!(
            first[..3],
            first[6..],
            "{arms:?}: flows take turns: {first:?}"
        );
        let again: Vec<_> = (40_000..40_009).map(ask).collect::<Result<_>>()?;
        assert_eq!(first, again, "{arms:?}: a flow stays on its backend");
    }
    Ok(())
}

#[test]
fn the_same_vip_and_port_may_be_a_tcp_and_a_udp_service() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let _dns = Dns::start(&topology.backends[0], "dns")?;
    let _web = Nginx::start(&topology.backends[1], "web")?;
    let mut config = dns_config(&topology);
    config.pools[0].backends.truncate(1);
    let config = config
        .pool(Pool::new("web", &topology.backends[1..], 80))
        .service(Service::tcp("www", 53, "web"));
    let _agent = Agent::start(&topology.balancer.netns, &config)?;
    assert_eq!(dig(&topology.client.netns, VIP, None)?, "dns");
    assert_eq!(
        Client::new(&topology.client.netns, (VIP, dns::PORT))
            .get("/")?
            .body,
        "web"
    );
    Ok(())
}

#[test]
fn a_dns_pool_is_checked_over_tcp() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let mut servers = Dns::on_each(&topology.backends)?;
    let mut config = dns_config(&topology);
    config.pools[0].check = Some(Check::tcp());
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    agent.wait_for_state("dns", "dns1", "up")?;
    drop(servers.pop());
    agent.wait_for_state("dns", "dns1", "down")?;
    for port in 41_000..41_006 {
        assert_eq!(
            dig(&topology.client.netns, VIP, Some((CLIENT, port)))?,
            "dns0",
            "port {port}"
        );
    }
    Ok(())
}

fn dns_config(topology: &Topology) -> Config {
    Config::new(topology)
        .pool(Pool::new("dns", &topology.backends, dns::PORT))
        .service(Service::udp("dns", dns::PORT, "dns"))
}
