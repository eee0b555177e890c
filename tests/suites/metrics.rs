//! The metrics: scraped by a real Prometheus, found good by promtool, and equal to what the client did.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::agent::config::{Check, METRICS, Pool, Service};
use lb_tests::agent::{Agent, Config, SOON};
use lb_tests::poll;
use lb_tests::prometheus::{self, Prometheus};
use lb_tests::topology::{Arms, CLIENT, Host, Topology, VIP};
use lb_tests::web::Web;

/// Port of the echo service.
const ECHO: u16 = 7;
/// Data of a datagram.
const DATA: [u8; 100] = [7; 100];
/// A datagram as a frame: Ethernet, IPv4 and UDP before the data.
const FRAME: u64 = 14 + 20 + 8 + 100;

#[test]
fn promtool_finds_nothing_and_the_pages_of_health_answer() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 2)?, Some(Check::http()))?;
    assert_eq!(web.client().sequence(10)?.len(), 10);
    let page = web.agent.http("/metrics")?;
    assert_eq!(page.status, 200);
    assert_eq!(prometheus::check_metrics(&format!("{}\n", page.body))?, "");
    for path in ["/healthz", "/readyz"] {
        let answer = web.agent.http(path)?;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    Ok(())
}

#[test]
fn prometheus_sees_what_the_client_did() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let _echoes = topology
        .backends
        .iter()
        .map(Echo::start)
        .collect::<Result<Vec<_>>>()?;
    let mut config = Config::new(&topology)
        .pool(Pool::new("echo", &topology.backends, ECHO))
        .service(Service::udp("echo", ECHO, "echo"));
    // The longer a look at the table takes, the longer it is until the next.
    config.flow_entries = Some(4_096);
    let agent = Agent::start(&topology.balancer.netns, &config)?;
    let row = |name| {
        poll::until(SOON, "a next hop", || {
            let row = agent.backend("echo", name)?;
            ensure!(row.next_hop.is_some(), "{row:?}");
            Ok(())
        })
    };
    row("echo0")?;
    row("echo1")?;
    let prometheus = Prometheus::start(&topology.balancer.netns, METRICS)?;
    prometheus.wait_for(SOON, "up", 1.0)?;

    // Ten flows of five datagrams each, all answered: five flows on each backend.
    for _ in 0..10 {
        let socket = topology
            .client
            .netns
            .run(|| UdpSocket::bind((CLIENT, 0)))??;
        socket.set_read_timeout(Some(SOON))?;
        socket.connect((VIP, ECHO))?;
        for _ in 0..5 {
            socket.send(&DATA)?;
            let mut answer = [0; 200];
            ensure!(socket.recv(&mut answer)? == DATA.len(), "a short answer");
        }
    }

    let wait = |query: &str, expected: u64| {
        let expected = f64::from(u32::try_from(expected)?);
        prometheus.wait_for(SOON, query, expected)
    };
    for direction in ["forward", "reverse"] {
        wait(
            &format!("lb_service_packets_total{{service='echo',direction='{direction}'}}"),
            50,
        )?;
        wait(
            &format!("lb_service_bytes_total{{service='echo',direction='{direction}'}}"),
            50 * FRAME,
        )?;
        for backend in ["echo0", "echo1"] {
            let labels = format!("backend='{backend}',direction='{direction}'");
            wait(&format!("lb_backend_packets_total{{{labels}}}"), 25)?;
            wait(&format!("lb_backend_bytes_total{{{labels}}}"), 25 * FRAME)?;
        }
    }
    wait("lb_service_new_flows_total{service='echo'}", 10)?;
    for backend in ["echo0", "echo1"] {
        wait(
            &format!("lb_backend_new_flows_total{{backend='{backend}'}}"),
            5,
        )?;
        wait(
            &format!("lb_backend_active_flows{{backend='{backend}'}}"),
            5,
        )?;
    }
    wait("lb_service_active_flows{service='echo'}", 10)?;
    wait("sum(lb_drops_total)", 0)?;
    wait("lb_flow_table_entries", 20)?;
    wait("count(lb_build_info)", 1)?;
    wait("count(lb_program_info)", 1)
}

#[test]
fn a_death_is_seen_in_the_metrics() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 2)?, Some(Check::http()))?;
    let prometheus = Prometheus::start(&web.topology.balancer.netns, METRICS)?;
    prometheus.wait_for(SOON, "sum(lb_backend_up)", 2.0)?;
    prometheus.wait_for(SOON, "lb_service_backends_in_rotation{service='www'}", 2.0)?;
    web.servers[1].kill()?;
    prometheus.wait_for(SOON, "lb_backend_up{backend='web1'}", 0.0)?;
    prometheus.wait_for(SOON, "lb_service_backends_in_rotation{service='www'}", 1.0)?;
    let checked = "sum(lb_health_checks_total{backend='web1'})";
    poll::until(SOON, "failed checks to be counted", || {
        let count = prometheus.value(checked)?;
        ensure!(count >= 3.0, "{count}");
        Ok(())
    })
}

#[test]
fn the_page_and_the_status_agree() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 3)?, None)?;
    assert_eq!(web.client().sequence(30)?.len(), 30);
    let page = poll::until(SOON, "30 flows on the page", || {
        let page = web.agent.http("/metrics")?.body;
        let flows = value(&page, "lb_service_new_flows_total{service=\"www\"}")?;
        ensure!(flows == "30", "{flows}");
        Ok(page)
    })?;
    let status = web.agent.status()?;
    let service = status.services.first().context("no service")?;
    assert_eq!(service.traffic.new_flows, 30);
    for row in &service.backends {
        let series = format!(
            "lb_backend_new_flows_total{{address=\"{}\",backend=\"{}\"}}",
            row.address, row.name
        );
        assert_eq!(value(&page, &series)?, row.traffic.new_flows.to_string());
    }
    for (reason, count) in &status.drops {
        assert_eq!(
            value(&page, &format!("lb_drops_total{{reason=\"{reason}\"}}"))?,
            count.to_string()
        );
    }
    Ok(())
}

/// The value of a series on a page.
fn value<'a>(page: &'a str, series: &str) -> Result<&'a str> {
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    Ok(line
        .with_context(|| format!("no {series} in\n{page}"))?
        .trim())
}

/// Sends every datagram back, until it is dropped.
struct Echo {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(host: &Host) -> Result<Self> {
        let socket = host.netns.run(|| UdpSocket::bind((host.address, ECHO)))??;
        // Only so that it looks whether it is over.
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut data = [0; 2_048];
            while !seen.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut data)
                    && let Err(error) = socket.send_to(&data[..length], from)
                {
                    eprintln!("the echo to {from} is lost: {error}");
                }
            }
        });
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            eprintln!("the echo has panicked");
        }
    }
}
