//! The harness itself, without the product: plain routed networks carry real traffic, and nothing stays behind.

mod disasm;
mod teardown;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::capture::Capture;
use lb_tests::dns::{Dns, dig};
use lb_tests::http::{self, Client, load::Load};
use lb_tests::icmp::IcmpSocket;
use lb_tests::iperf;
use lb_tests::lateness::Lateness;
use lb_tests::misbehave::{Manner, Server};
use lb_tests::netns::Netns;
use lb_tests::nginx::{self, Nginx};
use lb_tests::poll::{self, SOON};
use lb_tests::prometheus::{self, Prometheus};
use lb_tests::topology::{self, Arms, Topology};

#[test]
fn a_client_reaches_every_backend_through_the_balancers_routes() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let topology = Topology::new(arms, 2)?;
        for server in Nginx::on_each(&topology.backends)? {
            let client = Client::new(&topology.client.netns, server.address());
            assert_eq!(client.get("/")?.body, server.name(), "{arms:?}");
        }
    }
    Ok(())
}

#[test]
fn a_killed_server_refuses_and_a_restarted_one_answers() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut server = Nginx::start(&topology.backends[0], "web")?;
    let client = Client::new(&topology.client.netns, server.address());
    server.kill()?;
    let error = format!("{:#}", client.get("/").unwrap_err());
    assert!(error.contains("refused"), "{error}");
    server.restart()?;
    assert_eq!(client.get("/")?.body, "web");
    Ok(())
}

#[test]
fn a_crowd_is_there_all_at_once() -> Result<()> {
    let topology = Topology::alone(Arms::Two, 1)?;
    let server = Nginx::start(&topology.backends[0], "web")?;
    let exchanges = Client::new(&topology.client.netns, server.address()).crowd(5_000)?;
    assert_eq!(
        http::tally(&exchanges),
        BTreeMap::from([("web".to_owned(), 5_000)])
    );
    let last_start = exchanges.iter().map(|exchange| exchange.started).max();
    assert!(last_start.is_some(), "no request was sent");
    Ok(())
}

#[test]
fn a_constant_load_keeps_its_rate_and_tells_failures() -> Result<()> {
    let topology = Topology::alone(Arms::Two, 1)?;
    let server = Nginx::start(&topology.backends[0], "web")?;
    let client = Client::new(&topology.client.netns, server.address());
    let lateness = Lateness::of_this_process()?;
    let load = Load::constant(&client, 200);
    let sessions = Load::sessions(&client, 2, Duration::from_millis(10));
    poll::until(SOON, "200 answers", || match load.so_far().len() {
        count @ 0..200 => Err(format!("{count} answers")),
        _ => Ok(()),
    })?;
    server.kill()?;
    for one in [&load, &sessions] {
        poll::until(SOON, "a failed request", || {
            let failed = one
                .so_far()
                .iter()
                .any(|exchange| exchange.outcome.is_err());
            if failed { Ok(()) } else { Err("none failed") }
        })?;
    }
    let exchanges = load.stop()?;
    let first = exchanges[0].started;
    let hundredth = exchanges[100].started.duration_since(first)?;
    let late = lateness.so_far()?;
    let shortest = Duration::from_millis(480).saturating_sub(late);
    let expected = shortest..Duration::from_millis(600) + late;
    assert!(
        expected.contains(&hundredth),
        "100 requests at 200/s started within {hundredth:?}, {late:?} late"
    );
    sessions.stop().map(drop)
}

#[test]
fn a_command_that_fails_shows_what_it_said() -> Result<()> {
    let netns = Netns::new("error")?;
    let error = netns.ip("link set nothere up").unwrap_err().to_string();
    assert!(error.contains("link set nothere up"), "{error}");
    assert!(error.contains("Cannot find device"), "{error}");
    Ok(())
}

#[test]
fn a_server_on_no_port_is_told_with_its_log() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let host = &topology.backends[0];
    let _first = Nginx::start(host, "first")?;
    let error = match Nginx::start(host, "second") {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        error.contains("bind() to 0.0.0.0:80 failed"),
        "port {}: {error}",
        nginx::PORT
    );
    Ok(())
}

#[test]
fn servers_that_misbehave_do_so() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let host = &topology.backends[0];
    let ask = |manner| -> Result<String> {
        let server = Server::start(host, 8080, manner)?;
        let client = Client::new(&topology.client.netns, server.address());
        let answer = client.patience(Duration::from_millis(300)).get("/");
        assert_eq!(server.connections(), 1, "{manner:?}");
        Ok(answer.map_or_else(|error| format!("{error:#}"), |answer| answer.body))
    };
    assert_eq!(ask(Manner::Well)?, "ok");
    for manner in [
        Manner::Silent,
        Manner::HalfLineThenSilent,
        Manner::Endless,
        Manner::EndlessLine,
    ] {
        let said = ask(manner)?;
        assert!(
            said.contains("no answer within 300ms"),
            "{manner:?}: {said}"
        );
    }
    for manner in [Manner::Garbage, Manner::HalfLine, Manner::Closes] {
        let said = ask(manner)?;
        assert!(
            said.contains("reading") || said.contains("status line"),
            "{manner:?}: {said}"
        );
    }
    Ok(())
}

#[test]
fn ping_finds_a_host_and_tells_one_that_is_not_there() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let socket = IcmpSocket::open(&topology.client.netns)?;
    socket.ping(topology.backends[0].address, 1, SOON)?;
    let error = socket
        .ping(Ipv4Addr::new(10, 1, 0, 77), 2, Duration::from_millis(50))
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("no echo reply from 10.1.0.77"),
        "{error:#}"
    );
    Ok(())
}

#[test]
fn a_dns_server_answers_a_chosen_port() -> Result<()> {
    let topology = Topology::new(Arms::One, 2)?;
    let _servers = Dns::on_each(&topology.backends)?;
    let server = topology.backends[1].address;
    let said = dig(
        &topology.client.netns,
        server,
        Some((topology::CLIENT, 40_001)),
    )?;
    assert_eq!(said, "dns1");
    Ok(())
}

#[test]
fn bulk_traffic_arrives_with_right_checksums() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let topology = Topology::alone(arms, 1)?;
        let host = &topology.backends[0];
        let _server = iperf::Server::start(host)?;
        let captures = [
            Capture::start(topology.client.link(), 5_000)?,
            Capture::start(host.link(), 5_000)?,
        ];
        for options in [
            "--bytes 5M",
            "--bytes 5M --reverse",
            "--udp --bitrate 50M --bytes 1M",
        ] {
            let received = iperf::run(&topology.client.netns, host.address, options)?;
            assert!(received.bytes > 900_000, "{arms:?} {options}: {received:?}");
        }
        for capture in captures {
            capture
                .stop()?
                .check()
                .with_context(|| format!("{arms:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn prometheus_watches_itself() -> Result<()> {
    let netns = Netns::new("prometheus")?;
    let prometheus = Prometheus::start(&netns, "127.0.0.1:9090")?;
    prometheus.wait_for(SOON, "up{job=\"lb\"}", 1.0)?;
    assert_eq!(
        prometheus::check_metrics("# HELP a_total A.\n# TYPE a_total counter\na_total 1\n")?,
        ""
    );
    assert_ne!(prometheus::check_metrics("a_total 1\n")?, "");
    Ok(())
}
