//! The page as Prometheus would read it, and as `promtool` judges it.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use tokio::{net::TcpStream, sync::mpsc};

use super::*;
use crate::{
    core::{Handle, message::Message},
    health,
};

fn sample() -> StatusReport {
    serde_json::from_str(include_str!("../../examples/status.json")).unwrap()
}

fn exposition() -> String {
    let metrics = Metrics::new().unwrap();
    let checks = health::Metrics::register(metrics.registry()).unwrap();
    checks.record(
        "web1",
        &crate::health::CheckResult {
            pool: "web".to_owned(),
            backend: "10.0.0.11:80".parse().unwrap(),
            outcome: Ok(()),
            duration: std::time::Duration::from_millis(1),
        },
    );
    metrics.reloaded(
        true,
        SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500),
    );
    metrics.reloaded(false, SystemTime::now());
    metrics.exposition(&sample()).unwrap()
}

#[test]
fn a_report_becomes_series() {
    let text = exposition();
    let lines = [
        r#"lb_backend_active_flows{address="10.0.0.11:80",backend="web1",service="www"} 1200"#,
        r#"lb_backend_bytes_total{address="10.0.0.11:80",backend="web1",direction="forward"} 487654321"#,
        r#"lb_backend_in_rotation{address="10.0.0.12:80",backend="web2",service="www"} 0"#,
        r#"lb_backend_next_hop_resolved{address="10.0.0.13:80",backend="10.0.0.13:80"} 0"#,
        r#"lb_backend_new_flows_total{address="10.0.0.12:80",backend="web2"} 228394"#,
        r#"lb_backend_no_replies{address="10.0.0.11:80",backend="web1"} 0"#,
        r#"lb_backend_no_replies{address="10.0.0.15:80",backend="web5"} 1"#,
        r#"lb_backend_packets_total{address="10.0.0.12:80",backend="web2",direction="reverse"} 12000000"#,
        r#"lb_backend_up{address="10.0.0.11:80",backend="web1",pool="web"} 1"#,
        r#"lb_backend_up{address="10.0.0.12:80",backend="web2",pool="web"} 0"#,
        r#"lb_backend_up{address="10.0.0.14:80",backend="10.0.0.14:80",pool="web"} 0"#,
        r#"lb_backend_up{address="10.0.0.21:53",backend="ns",pool="dns"} 1"#,
        r#"lb_backend_weight{address="10.0.0.13:80",backend="10.0.0.13:80",pool="web"} 0"#,
        r#"lb_build_info{lb_instance="lb",version="0.1.0"} 1"#,
        "lb_config_last_reload_success_timestamp_seconds 1.5",
        "lb_config_last_reload_successful 0",
        r#"lb_drops_total{reason="no_neighbour"} 10"#,
        r#"lb_drops_total{reason="reply_collision"} 0"#,
        "lb_flow_table_capacity 262144",
        "lb_flow_table_entries 2480",
        r#"lb_interface_attached{interface="eth0",mode="native"} 1"#,
        r#"lb_interface_attached{interface="eth1",mode="detached"} 0"#,
        r#"lb_driver_counters_total{counter="tx_xdp_tx_drops",interface="eth0"} 327"#,
        r#"lb_interface_notices{interface="eth0"} 1"#,
        r#"lb_interface_notices{interface="eth1"} 0"#,
        "lb_map_changes_total 212",
        r#"lb_packets_total{verdict="drop"} 12"#,
        r#"lb_packets_total{verdict="redirect"} 35802467"#,
        r#"lb_program_info{id="123",log="off",tag="3b185187f1855c4c"} 1"#,
        "lb_program_loaded_timestamp_seconds 1772358415.3",
        "lb_program_verified_instructions 23456",
        "lb_ready 1",
        "lb_reconcile_failures_total 0",
        "lb_reconciles_total 8123",
        r#"lb_service_active_flows{service="www"} 1234"#,
        r#"lb_service_backends_in_rotation{service="www"} 2"#,
        r#"lb_service_bytes_total{direction="reverse",service="www"} 12345678901"#,
        r#"lb_service_new_flows_total{service="www"} 456789"#,
        r#"lb_service_packets_total{direction="forward",service="192.0.2.11:53/udp"} 100"#,
    ];
    for line in lines {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in:\n{text}"
        );
    }
    assert!(text.contains("\nprocess_start_time_seconds "), "{text}");
    let info = r#"lb_service_info{address="192.0.2.10:80",mode="nat",pool="web",protocol="tcp",scheduler="round-robin",service="www"} 1"#;
    assert!(text.contains(info), "{text}");
}

/// The table of METRICS.md as it should be: name, kind, labels and help of each family on the page.
fn table(text: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut helps = text.split("# HELP ").skip(1);
    while let Some((name, rest)) = helps.next().and_then(|family| family.split_once(' ')) {
        let mut lines = rest.lines();
        let help = lines.next().unwrap();
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let labels: std::collections::BTreeSet<_> = lines
            .filter_map(|series| series.split_once('{'))
            .flat_map(|(_, labels)| {
                labels
                    .split("\",")
                    .map(|label| label.split('=').next().unwrap())
            })
            .filter(|label| *label != "le")
            .map(|label| format!("`{label}`"))
            .collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        rows.push(format!("| `{name}` | {kind} | {labels} | {help} |"));
    }
    rows
}

#[test]
fn every_metric_stands_in_the_table() {
    let rows = table(&exposition());
    let document = include_str!("../../METRICS.md");
    let documented: Vec<_> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(
        documented,
        rows,
        "METRICS.md should say:\n{}",
        rows.join("\n")
    );
}

#[test]
fn the_page_says_of_each_pair_what_the_report_says() {
    let (report, text) = (sample(), exposition());
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let series = format!("{name}{{{}}} ", labels.join(","));
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series}in:\n{text}"))
            .to_owned()
    };
    for service in &report.services {
        for row in &service.backends {
            let backend = [("address", row.address.as_str()), ("backend", &row.name)];
            let pair = [&backend[..], &[("service", &service.name)]].concat();
            let flows = row.active_flows.to_string();
            assert_eq!(value("lb_backend_active_flows", &pair), flows);
            let in_rotation = u8::from(row.in_rotation).to_string();
            assert_eq!(value("lb_backend_in_rotation", &pair), in_rotation);
            let missing = u8::from(row.no_replies.is_some()).to_string();
            assert_eq!(value("lb_backend_no_replies", &backend), missing);
            let shared = report.shared_backends.iter();
            let mut shared = shared.filter(|shared| shared.address == row.address);
            let traffic = row
                .traffic
                .or_else(|| Some(shared.next()?.traffic))
                .unwrap();
            let flows = traffic.new_flows.to_string();
            assert_eq!(value("lb_backend_new_flows_total", &backend), flows);
        }
    }
}

#[test]
fn a_backend_of_two_services_counts_once() {
    let text = exposition();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("lb_backend_packets_total{address=\"10.0.0.21:53\""))
        .collect();
    let forward =
        r#"lb_backend_packets_total{address="10.0.0.21:53",backend="ns",direction="forward"} 1099"#;
    let reverse =
        r#"lb_backend_packets_total{address="10.0.0.21:53",backend="ns",direction="reverse"} 1098"#;
    assert_eq!(lines, [forward, reverse]);
}

#[test]
fn a_removed_service_is_none_of_the_configuration() {
    let text = exposition();
    for name in ["lb_service_info{", "lb_service_backends_in_rotation{"] {
        let mut lines = text.lines().filter(|line| line.starts_with(name));
        assert!(!lines.any(|line| line.contains("192.0.2.11")), "{name}");
    }
    assert!(
        !text.contains("pool=\"\""),
        "its backends are of no pool:\n{text}"
    );
}

#[test]
fn an_empty_report_is_a_page_too() {
    let text = Metrics::new()
        .unwrap()
        .exposition(&StatusReport::default())
        .unwrap();
    assert!(text.contains("lb_ready 0\n"), "{text}");
}

#[test]
fn promtool_finds_nothing() {
    let started = Command::new("promtool")
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(child) => child,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "promtool can't be run: {error}"
            );
            eprintln!(
                "skipped: promtool can't be run: {error}; it comes with Debian's package prometheus"
            );
            return;
        }
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(exposition().as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// A core that knows one report; `None`: one that has stopped.
fn core(report: Option<StatusReport>) -> Handle {
    let (sender, mut messages) = mpsc::channel(8);
    if let Some(report) = report {
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                match message {
                    Message::Status { reply } => drop(reply.send(report.clone())),
                    Message::Ping { reply } => drop(reply.send(())),
                    _ => {}
                }
            }
        });
    }
    Handle(sender)
}

async fn page(core: Handle, path: &str) -> (StatusCode, String) {
    let listener = TcpStream::connect(serve(core).await).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(listener))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "lb")
        .body(Body::empty())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    (
        status,
        String::from_utf8(
            answer
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap(),
    )
}

async fn serve(core: Handle) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = listener::router(Metrics::new().unwrap(), core);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn pages_say_how_the_agent_is() {
    let mut report = sample();
    let (status, text) = page(core(Some(report.clone())), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("lb_ready 1\n"));
    assert_eq!(
        page(core(Some(report.clone())), "/healthz").await,
        (StatusCode::OK, "ok\n".into())
    );
    assert_eq!(
        page(core(Some(report.clone())), "/readyz").await,
        (StatusCode::OK, "ready\n".into())
    );
    report.agent.ready = false;
    report.agent.not_ready = vec!["eth1: there is no interface eth1".into()];
    let unready = (
        StatusCode::SERVICE_UNAVAILABLE,
        "not ready\neth1: there is no interface eth1\n".to_owned(),
    );
    assert_eq!(page(core(Some(report.clone())), "/readyz").await, unready);
    report.program = None;
    assert_eq!(
        page(core(Some(report)), "/metrics").await,
        unready,
        "nothing was read, and zeroes would be wrong"
    );
    let mute = (
        StatusCode::SERVICE_UNAVAILABLE,
        "the agent's core does not answer\n".to_owned(),
    );
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(page(core(None), path).await, mute);
    }
    assert_eq!(page(core(None), "/").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "the metrics can't listen on {address}: Address already in use (os error 98)\n   \
             help: stop the program that has the port (`ss -ltnp` shows it), or change `listen` in [metrics]"
        )
    );
    let elsewhere = bind("192.0.2.1:9850".parse().unwrap())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        elsewhere.contains("to an address of this host"),
        "{elsewhere}"
    );
}
