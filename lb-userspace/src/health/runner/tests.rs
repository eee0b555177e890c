//! Real checks of real listeners, as quickly as they go.

use std::time::Duration;

use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::model::{Backend, CheckKind};

const SOON: Duration = Duration::from_secs(5);

fn pool(name: &str, check: Option<Check>, addresses: &[SocketAddr]) -> Pool {
    let backends = addresses.iter().map(|address| Backend {
        name: address.to_string(),
        address: *address,
        weight: 1,
    });
    Pool {
        name: name.into(),
        check,
        backends: backends.collect(),
    }
}

fn every(millis: u64) -> Check {
    Check {
        kind: CheckKind::Tcp,
        interval: Duration::from_millis(millis),
        timeout: Duration::from_millis(millis),
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn checks() -> (Checks, mpsc::Receiver<CheckResult>, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let (sender, results) = mpsc::channel(64);
    (
        Checks::new(sender, Metrics::register(&registry).unwrap()),
        results,
        registry,
    )
}

async fn next(results: &mut mpsc::Receiver<CheckResult>) -> CheckResult {
    timeout(SOON, results.recv())
        .await
        .expect("no result came")
        .unwrap()
}

fn exposition(registry: &prometheus::Registry) -> String {
    prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap()
}

#[tokio::test]
async fn a_backend_is_checked_in_every_pool_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut checks, mut results, registry) = checks();
    checks.reconfigure(&[
        pool("a", Some(every(20)), &[address]),
        pool("b", Some(every(20)), &[address]),
    ]);
    let mut pools = std::collections::BTreeSet::new();
    while pools.len() < 2 {
        let result = next(&mut results).await;
        assert_eq!((result.backend, result.outcome), (address, Ok(())));
        assert!(result.duration > Duration::ZERO);
        pools.insert(result.pool);
    }
    let text = exposition(&registry);
    let labels = format!("backend=\"{address}\",pool=\"a\"");
    assert!(
        text.contains(&format!(
            "lb_health_check_duration_seconds_bucket{{{labels},le=\"10\"}}"
        )),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "lb_health_checks_total{{{labels},result=\"void\"}} 0"
        )),
        "{text}"
    );
}

#[tokio::test]
async fn another_port_may_be_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut checks, mut results, _) = checks();
    let backend: SocketAddr = "127.0.0.1:1".parse().unwrap();
    checks.reconfigure(&[pool(
        "a",
        Some(Check {
            port: Some(port),
            ..every(20)
        }),
        &[backend],
    )]);
    let result = next(&mut results).await;
    assert_eq!((result.backend, result.outcome), (backend, Ok(())));
}

#[tokio::test]
async fn a_backend_that_is_gone_is_checked_no_more() {
    let refused: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let (mut checks, mut results, registry) = checks();
    checks.reconfigure(&[pool("a", Some(every(10)), &[refused])]);
    assert_eq!(
        next(&mut results).await.outcome,
        Err("connection refused".into())
    );
    checks.reconfigure(&[pool("a", None, &[refused])]);
    assert!(
        !exposition(&registry).contains("127.0.0.1:1"),
        "its metrics are gone too"
    );
    drop(checks);
    while timeout(SOON, results.recv())
        .await
        .expect("the task still runs")
        .is_some()
    {}
}

#[tokio::test]
async fn an_unchanged_check_is_not_disturbed() {
    let refused: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let other: SocketAddr = "127.0.0.1:2".parse().unwrap();
    let (mut checks, _results, _) = checks();
    let id = |checks: &Checks, address| checks.tasks[&("a".to_owned(), address)].handle.id();
    checks.reconfigure(&[pool("a", Some(every(1000)), &[refused, other])]);
    let before = id(&checks, refused);
    checks.reconfigure(&[pool(
        "a",
        Some(Check {
            rise: 7,
            fall: 9,
            ..every(1000)
        }),
        &[refused],
    )]);
    assert_eq!(id(&checks, refused), before);
    checks.reconfigure(&[pool("a", Some(every(500)), &[refused])]);
    assert_ne!(id(&checks, refused), before);
}

#[tokio::test]
async fn backends_that_swap_names_keep_their_metrics() {
    let addresses: [SocketAddr; 2] = [
        "127.0.0.1:1".parse().unwrap(),
        "127.0.0.1:2".parse().unwrap(),
    ];
    let (mut checks, _results, registry) = checks();
    let mut pools = [pool("a", Some(every(1000)), &addresses)];
    pools[0].backends[0].name = "x".into();
    pools[0].backends[1].name = "y".into();
    checks.reconfigure(&pools);
    pools[0].backends[0].name = "y".into();
    pools[0].backends[1].name = "x".into();
    checks.reconfigure(&pools);
    let text = exposition(&registry);
    for name in ["x", "y"] {
        assert!(
            text.contains(&format!(
                "lb_health_checks_total{{backend=\"{name}\",pool=\"a\",result=\"pass\"}}"
            )),
            "{text}"
        );
    }
}

#[test]
fn a_thousand_tasks_spread_evenly_over_the_interval() {
    let mut phases: Vec<f64> = (0..1000).map(phase).collect();
    assert!(phases.iter().all(|phase| (0.0..1.0).contains(phase)));
    phases.sort_by(f64::total_cmp);
    let widest = phases
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(0.0, f64::max);
    assert!(widest < 0.003, "a gap of {widest}");
}
