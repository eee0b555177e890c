//! The metrics: scraped by a real Prometheus, found good by promtool, and equal to what the client did.

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lb_tests::agent::config::{Check, METRICS, Pool, Service};
use lb_tests::agent::{Agent, Config, Event, SOON};
use lb_tests::http::Client;
use lb_tests::poll;
use lb_tests::prometheus::{self, Prometheus};
use lb_tests::topology::{Arms, CLIENT, Host, Topology, VIP};
use lb_tests::web::Web;
use lb_userspace::status::{StatusReport, Traffic};

/// How long Prometheus may take to have seen something: a few scrapes, some of which fail while the machine is busy.
const SCRAPED: Duration = Duration::from_mins(1);
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
fn clients_that_ask_without_end_and_read_nothing_hold_up_nobody() -> Result<()> {
    const CLIENTS: usize = 900;
    const REQUESTS: usize = 50;
    let web = Web::start(Topology::new(Arms::Two, 2)?, Some(Check::http()))?;
    let asked = web.agent.netns().run(|| {
        let ask = |_| -> Result<TcpStream> {
            let mut stream = TcpStream::connect(METRICS)?;
            let request = "GET /metrics HTTP/1.1\r\nHost: lb\r\n\r\n".repeat(REQUESTS);
            stream.write_all(request.as_bytes())?;
            Ok(stream)
        };
        (0..CLIENTS).map(ask).collect::<Result<Vec<_>>>()
    })?;
    let asked = asked?;
    let killed = SystemTime::now();
    web.servers[1].kill()?;
    // It says 503 where the core has not answered for three seconds.
    poll::throughout(Duration::from_secs(5), "an agent that answers", || {
        for path in ["/readyz", "/healthz"] {
            let answer = web.agent.http(path)?;
            ensure!(answer.status == 200, "{path}: {answer:?}");
        }
        Ok(())
    })?;
    let down = |event: &Event| event.is_backend_state("web1", "down");
    let event = web.agent.wait_for_event(SOON, "web1 down", killed, down)?;
    eprintln!(
        "down {:?} after the end",
        event.time.duration_since(killed)?
    );
    drop(asked);
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
    prometheus.wait_for(SCRAPED, "up", 1.0)?;

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
        prometheus.wait_for(SCRAPED, query, expected)
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
    prometheus.wait_for(SCRAPED, "sum(lb_backend_up)", 2.0)?;
    prometheus.wait_for(
        SCRAPED,
        "lb_service_backends_in_rotation{service='www'}",
        2.0,
    )?;
    web.servers[1].kill()?;
    prometheus.wait_for(SCRAPED, "lb_backend_up{backend='web1'}", 0.0)?;
    prometheus.wait_for(
        SCRAPED,
        "lb_service_backends_in_rotation{service='www'}",
        1.0,
    )?;
    let checked = "sum(lb_health_checks_total{backend='web1'})";
    poll::until(SCRAPED, "failed checks to be counted", || {
        let count = prometheus.value(checked)?;
        ensure!(count >= 3.0, "{count}");
        Ok(())
    })
}

#[test]
fn the_page_and_the_status_agree_of_every_service_backend_and_pair() -> Result<()> {
    let topology = Topology::new(Arms::Two, 3)?;
    // Two services share two backends, the third has one for itself.
    let config = Config::web(&topology, None);
    let (shared, own) = topology.backends.split_at(2);
    let config = Config {
        pools: vec![Pool::new("web", shared, 80), Pool::new("own", own, 80)],
        ..config
    }
    .service(Service::tcp("alt", 8080, "web"))
    .service(Service::tcp("own", 8081, "own"));
    let web = Web::with_config(topology, &config)?;
    for (port, requests) in [(80, 30), (8080, 4), (8081, 7)] {
        let client = Client::new(&web.topology.client.netns, (VIP, port));
        assert_eq!(client.sequence(requests)?.len(), requests);
    }
    poll::until(
        SCRAPED,
        "the page and the status to be of one moment",
        || {
            let before = web.agent.http("/metrics")?.body;
            let status = web.agent.status()?;
            let page = web.agent.http("/metrics")?.body;
            let moving =
                |line: &&str| line.starts_with("lb_service") || line.starts_with("lb_backend");
            let still = before
                .lines()
                .filter(moving)
                .eq(page.lines().filter(moving));
            ensure!(still, "{before}\n{page}");
            compare(&page, &status)
        },
    )?;
    let status = web.agent.status()?;
    let flows = status.services.iter().map(|row| row.traffic.new_flows);
    assert_eq!(flows.collect::<Vec<_>>(), [30, 4, 7]);
    let flows = status
        .shared_backends
        .iter()
        .map(|row| row.traffic.new_flows);
    assert_eq!(flows.collect::<Vec<_>>(), [17, 17]);
    for service in &status.services {
        for backend in &service.backends {
            let flows = backend.traffic.map(|traffic| traffic.new_flows);
            assert_eq!(flows, (service.name == "own").then_some(7), "{service:#?}");
        }
    }
    for (reason, count) in &status.drops {
        let page = web.agent.http("/metrics")?.body;
        let series = format!("lb_drops_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&page, &series)?, count.to_string());
    }
    Ok(())
}

/// Everything that both say of services, backends and pairs.
fn compare(page: &str, status: &StatusReport) -> Result<()> {
    let equal = |series: String, expected: u64| {
        let found = value(page, &series)?;
        ensure!(
            found == expected.to_string(),
            "{series} {found}, the status says {expected}"
        );
        Ok(())
    };
    let traffic = |what: &str, labels: &str, label_last: &str, traffic: &Traffic| {
        for (unit, forward, reverse) in [
            ("packets", traffic.forward_packets, traffic.reverse_packets),
            ("bytes", traffic.forward_bytes, traffic.reverse_bytes),
        ] {
            for (direction, count) in [("forward", forward), ("reverse", reverse)] {
                let labels = format!("{labels}direction=\"{direction}\"{label_last}");
                equal(format!("lb_{what}_{unit}_total{{{labels}}}"), count)?;
            }
        }
        let labels = format!("{labels}{}", label_last.trim_start_matches(','));
        let labels = labels.trim_end_matches(',');
        equal(
            format!("lb_{what}_new_flows_total{{{labels}}}"),
            traffic.new_flows,
        )
    };
    let of_backend = |address: &str, name: &str, counts: &Traffic| {
        let labels = format!("address=\"{address}\",backend=\"{name}\",");
        traffic("backend", &labels, "", counts)
    };
    for service in &status.services {
        let name = &service.name;
        let label = format!("service=\"{name}\"");
        equal(
            format!("lb_service_active_flows{{{label}}}"),
            service.active_flows,
        )?;
        traffic("service", "", &format!(",{label}"), &service.traffic)?;
        for row in &service.backends {
            let pair = format!(
                "address=\"{}\",backend=\"{}\",{label}",
                row.address, row.name
            );
            equal(
                format!("lb_backend_active_flows{{{pair}}}"),
                row.active_flows,
            )?;
            equal(
                format!("lb_backend_in_rotation{{{pair}}}"),
                row.in_rotation.into(),
            )?;
            if let Some(counts) = &row.traffic {
                of_backend(&row.address, &row.name, counts)?;
            }
        }
    }
    for row in &status.shared_backends {
        of_backend(&row.address, &row.name, &row.traffic)?;
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
