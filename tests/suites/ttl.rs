//! A TTL that runs out at the balancer gets its answer from there, as traceroute wants it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result, ensure};
use lb_tests::agent::config::{Pool, Service};
use lb_tests::agent::{Agent, Config};
use lb_tests::frames::{Icmp, Ipv4};
use lb_tests::icmp::IcmpSocket;
use lb_tests::netns::Netns;
use lb_tests::poll::{self, SOON};
use lb_tests::topology::{Arms, BALANCER, CLIENT, Topology, VIP};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};

const PORT: u16 = 5_000;

#[test]
fn a_udp_packet_whose_ttl_runs_out_gets_time_exceeded() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let (topology, _agent) = start(arms)?;
        let netns = &topology.client.netns;
        let errors = IcmpSocket::open(netns)?;
        let sender = netns.run(|| UdpSocket::bind((CLIENT, 0)))??;
        sender.set_ttl(1)?;
        sender.send_to(b"how far?", (VIP, PORT))?;
        let (packet, message) = time_exceeded(&errors)?;
        quotes(&packet, &message, sender.local_addr()?.port())?;
    }
    Ok(())
}

#[test]
fn a_syn_whose_ttl_runs_out_gets_time_exceeded() -> Result<()> {
    let (topology, _agent) = start(Arms::Two)?;
    let netns = &topology.client.netns;
    let errors = IcmpSocket::open(netns)?;
    let port = connect_with_ttl(netns, 1)?;
    let (packet, message) = time_exceeded(&errors)?;
    quotes(&packet, &message, port)
}

#[test]
fn the_next_hop_is_the_backend() -> Result<()> {
    // With one hop more the packet reaches the backend, where nobody listens, and its error comes back in its name:
    // from outside it is the VIP's port that is closed.
    let (topology, agent) = start(Arms::Two)?;
    let before = forwarded(&agent)?;
    let netns = &topology.client.netns;
    let sender = netns.run(|| UdpSocket::bind((CLIENT, 0)))??;
    sender.set_ttl(2)?;
    sender.send_to(b"how far?", (VIP, PORT))?;
    poll::until(SOON, "the packet to be forwarded", || {
        let now = forwarded(&agent)?;
        ensure!(now == before + 1, "{before} then {now}");
        Ok(())
    })
}

fn start(arms: Arms) -> Result<(Topology, Agent)> {
    let topology = Topology::new(arms, 1)?;
    let config = Config::new(&topology)
        .pool(Pool::new("far", &topology.backends, PORT))
        .service(Service::udp("far-udp", PORT, "far"))
        .service(Service::tcp("far-tcp", PORT, "far"));
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    agent.wait_for_state("far-udp", "far0", "unchecked")?;
    Ok((topology, agent))
}

fn forwarded(agent: &Agent) -> Result<u64> {
    let status = agent.status()?;
    let service = status
        .services
        .iter()
        .find(|service| service.name == "far-udp")
        .context("no service")?;
    Ok(service.traffic.forward_packets)
}

fn time_exceeded(socket: &IcmpSocket) -> Result<(Ipv4, Icmp)> {
    socket.receive(SOON, |_, message| {
        message.kind == Icmp::TIME_EXCEEDED && message.code == 0
    })
}

/// The error comes from the balancer or its VIP and quotes our packet as we sent it.
fn quotes(packet: &Ipv4, message: &Icmp, port: u16) -> Result<()> {
    ensure!(
        [BALANCER, VIP].contains(&packet.source),
        "from {}",
        packet.source
    );
    let quote = message.quote()?;
    assert_eq!(quote.source, SocketAddrV4::new(CLIENT, port));
    assert_eq!(quote.destination, SocketAddrV4::new(VIP, PORT));
    assert_eq!(message.checksum, None, "wrong ICMP checksum");
    Ok(())
}

/// Sends a SYN with this TTL and does not wait; gives the port that it came from.
fn connect_with_ttl(netns: &Netns, ttl: u32) -> Result<u16> {
    netns.run(|| {
        let flags = SocketFlags::NONBLOCK;
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            flags,
            Some(ipproto::TCP),
        )?;
        sockopt::set_ip_ttl(&socket, ttl)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 40_123))?;
        match connect(&socket, &SocketAddrV4::new(VIP, PORT)) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(40_123),
            Err(error) => Err(error.into()),
        }
    })?
}
