//! What is not ours passes untouched: the host's own services and clients, other protocols, routed strangers.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use lb_tests::agent::config::Check;
use lb_tests::dns::{Dns, dig};
use lb_tests::echo::{BANNER, Listener, banner};
use lb_tests::http::Client;
use lb_tests::icmp::IcmpSocket;
use lb_tests::misbehave::{Manner, Server};
use lb_tests::poll::SOON;
use lb_tests::topology::{Arms, BALANCER, BALANCER_V6, CLIENT, GATEWAY, Topology, VIP};
use lb_tests::web::Web;

#[test]
fn arp_for_the_host_and_for_the_vip_is_answered() -> Result<()> {
    for web in sites()? {
        let client = &web.topology.client.netns;
        client.ip("neigh flush all")?;
        let socket = IcmpSocket::open(client)?;
        for address in [BALANCER, VIP] {
            socket.ping(address, 1, SOON)?;
            let entry = client.ip(&format!("neigh show {address}"))?;
            assert!(entry.contains("lladdr"), "{address}: {entry}");
        }
    }
    Ok(())
}

#[test]
fn ping_reaches_the_host_the_vip_and_a_backend_behind() -> Result<()> {
    for web in sites()? {
        let backend = web.topology.backends[0].address;
        let socket = IcmpSocket::open(&web.topology.client.netns)?;
        for (sequence, target) in (0..).zip([BALANCER, VIP, GATEWAY, backend]) {
            socket.ping(target, sequence, SOON)?;
        }
    }
    Ok(())
}

#[test]
fn ssh_on_the_hosts_address_and_on_another_port_of_the_vip_is_the_hosts() -> Result<()> {
    for web in sites()? {
        let balancer = &web.topology.balancer.netns;
        let _listener = Listener::start(balancer, (Ipv4Addr::UNSPECIFIED, 22))?;
        for address in [BALANCER, VIP] {
            assert_eq!(
                banner(&web.topology.client.netns, (address, 22))?,
                BANNER,
                "{address}"
            );
        }
        let error = banner(&web.topology.client.netns, (VIP, 23))
            .err()
            .context("nobody listens at 23")?;
        assert!(format!("{error:#}").contains("refused"), "{error:#}");
    }
    Ok(())
}

#[test]
fn the_hosts_own_server_at_the_services_port_of_another_address_is_reached() -> Result<()> {
    for web in sites()? {
        let _listener = Listener::start(&web.topology.balancer.netns, (BALANCER, 80))?;
        assert_eq!(banner(&web.topology.client.netns, (BALANCER, 80))?, BANNER);
        assert!(web.client().get("/")?.body.starts_with("web"));
    }
    Ok(())
}

#[test]
fn ipv6_to_the_host_passes() -> Result<()> {
    for web in sites()? {
        let address: std::net::Ipv6Addr = BALANCER_V6.parse()?;
        let _listener = Listener::start(&web.topology.balancer.netns, (address, 80))?;
        assert_eq!(banner(&web.topology.client.netns, (address, 80))?, BANNER);
    }
    Ok(())
}

#[test]
fn the_host_asks_dns_servers_on_both_sides() -> Result<()> {
    for web in sites()? {
        let hosts = [&web.topology.client, &web.topology.backends[0]];
        for (host, name) in hosts.into_iter().zip(["client", "backend"]) {
            let _server = Dns::start(host, name)?;
            assert_eq!(dig(&web.topology.balancer.netns, host.address, None)?, name);
        }
    }
    Ok(())
}

#[test]
fn a_client_that_talks_to_a_backend_directly_is_routed() -> Result<()> {
    for web in sites()? {
        let backend = &web.topology.backends[0];
        let client = &web.topology.client.netns;
        let _other = Server::start(backend, 8080, Manner::Well)?;
        assert_eq!(
            Client::new(client, (backend.address, 8080)).get("/")?.body,
            "ok"
        );
        assert_eq!(
            Client::new(client, (backend.address, 80)).get("/")?.body,
            "web0",
            "the service's own port"
        );
    }
    Ok(())
}

#[test]
fn a_backend_reaches_the_client_and_the_host() -> Result<()> {
    for web in sites()? {
        let backend = &web.topology.backends[0].netns;
        let _on_client = Listener::start(&web.topology.client.netns, (CLIENT, 80))?;
        let _on_host = Listener::start(&web.topology.balancer.netns, (GATEWAY, 80))?;
        for address in [CLIENT, GATEWAY] {
            assert_eq!(banner(backend, (address, 80))?, BANNER, "{address}");
        }
    }
    Ok(())
}

#[test]
fn the_host_itself_reaches_every_backend() -> Result<()> {
    for web in sites()? {
        for server in &web.servers {
            let answer = Client::new(&web.topology.balancer.netns, server.address()).get("/")?;
            assert_eq!(answer.body, server.name());
        }
        // The checks went the same way: all passed from the first on.
        let checks = web
            .agent
            .backend("www", "web0")?
            .checks
            .context("web0 is checked")?;
        assert_eq!(checks.failed, 0, "{checks:?}");
    }
    Ok(())
}

fn sites() -> Result<Vec<Web>> {
    let site = |arms| Web::start(Topology::new(arms, 2)?, Some(Check::http().patient()));
    [Arms::One, Arms::Two].into_iter().map(site).collect()
}
