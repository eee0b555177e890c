//! A backend dies under load and comes back; the others' clients never notice.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lb_tests::agent::config::Check;
use lb_tests::http::load::Load;
use lb_tests::http::{self, Exchange};
use lb_tests::lateness::Lateness;
use lb_tests::poll::{self, SOON};
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

/// What the figures of a detection may be late by, beside what the agent had to wait for a CPU.
const GRACE: Duration = Duration::from_millis(100);
/// More than one retransmission of TCP takes, 200 ms, and less than two, beside what the client had to wait for a CPU.
const STALL: Duration = Duration::from_millis(500);
/// Requests a second.
const RATE: u32 = 200;

#[test]
fn a_killed_backend_is_out_in_time_and_back_after_rise_with_tcp_checks() -> Result<()> {
    dies_and_returns(Arms::Two, &Check::tcp())
}

#[test]
fn a_killed_backend_is_out_in_time_and_back_after_rise_with_http_checks() -> Result<()> {
    dies_and_returns(Arms::One, &Check::http())
}

#[test]
fn a_frozen_host_is_out_within_the_same_time() -> Result<()> {
    // Nothing refuses here: every check runs into its timeout.
    let check = Check::tcp();
    let web = Web::start(Topology::alone(Arms::Two, 2)?, Some(check.clone()))?;
    let lateness = Lateness::of(web.agent.pid()?)?;
    let cut = SystemTime::now();
    web.topology.backends[1].link().down()?;
    let event = web.agent.wait_for_event(SOON, "web1 down", cut, |event| {
        event.is_backend_state("web1", "down")
    })?;
    let late = event.time.duration_since(cut)?;
    let allowed = check.detection() + GRACE + lateness.so_far()?;
    assert!(
        late <= allowed,
        "seen after {late:?}, allowed {allowed:?}: {event:?}"
    );
    assert!(!event.field("reason").is_empty(), "no reason: {event:?}");
    Ok(())
}

#[test]
fn with_every_backend_down_nothing_is_sent_to_them_and_the_first_to_return_serves() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::Two, 2)?, Some(Check::tcp()))?;
    let client = web.client().patience(Duration::from_millis(300));
    for server in &web.servers {
        server.kill()?;
    }
    for backend in ["web0", "web1"] {
        web.agent.wait_for_state("www", backend, "down")?;
    }
    let error = client
        .get("/")
        .err()
        .context("a request succeeded without servers")?;
    let drops = web.agent.status()?.drops;
    ensure!(
        drops.get("no_backend").is_some_and(|packets| *packets > 0),
        "{error:#}, but no drop for want of a backend is counted: {drops:?}"
    );
    web.servers[1].restart()?;
    web.agent.wait_for_state("www", "web1", "up")?;
    assert_eq!(web.client().get("/")?.body, "web1");
    Ok(())
}

fn dies_and_returns(arms: Arms, check: &Check) -> Result<()> {
    let mut web = Web::start(Topology::alone(arms, 3)?, Some(check.clone()))?;
    let here = Lateness::of_this_process()?;
    // Alone they take exact turns; the load that follows shares the rotation with them.
    let sessions = Load::sessions(&web.client(), 9, Duration::from_millis(10));
    poll::until(SOON, "all nine sessions", || {
        let connections = sessions
            .so_far()
            .iter()
            .map(|one| one.connection)
            .collect::<BTreeSet<_>>();
        if connections.len() == 9 {
            Ok(())
        } else {
            Err(format!("{connections:?}"))
        }
    })?;
    let load = Load::constant(&web.client(), RATE);
    answered(&load, SystemTime::UNIX_EPOCH, "web1")?;

    let lateness = Lateness::of(web.agent.pid()?)?;
    let killed = SystemTime::now();
    web.servers[1].kill()?;
    let down = web
        .agent
        .wait_for_event(SOON, "web1 down", killed, |event| {
            event.is_backend_state("web1", "down")
        })?;
    let late = down.time.duration_since(killed)?;
    let allowed = check.detection() + GRACE + lateness.so_far()?;
    assert!(
        late <= allowed,
        "seen after {late:?}, allowed {allowed:?}: {down:?}"
    );
    poll::until(SOON, "200 requests after the detection", || {
        let count = load.since(down.time).len();
        ensure!(count >= 200, "{count} requests");
        Ok(())
    })?;

    let restarting = SystemTime::now();
    web.servers[1].restart()?;
    let up = web
        .agent
        .wait_for_event(SOON, "web1 up", restarting, |event| {
            event.is_backend_state("web1", "up")
        })?;
    let late = up.time.duration_since(restarting)?;
    eprintln!("down: {down:?}\nup {late:?} after the restart began: {up:?}");
    answered(&load, up.time, "web1")?;

    let exchanges = load.stop()?;
    let after: Vec<_> = exchanges
        .iter()
        .filter(|one| one.started >= down.time)
        .cloned()
        .collect();
    let failures = http::failures(&after);
    assert!(
        failures.is_empty(),
        "started after {:?} and failed: {failures:#?}",
        down.time
    );
    let early: Vec<_> = after
        .iter()
        .filter(|one| one.started < restarting && one.server() == Ok("web1"))
        .collect();
    assert!(
        early.is_empty(),
        "sent to a backend that was down: {early:?}"
    );
    let exchanges = sessions.stop()?;
    check_sessions(&exchanges, STALL + here.so_far()?)
}

/// Waits until a server has answered a request that started at `from` or later.
fn answered(load: &Load, from: SystemTime, server: &str) -> Result<()> {
    poll::until(SOON, format!("an answer of {server}"), || {
        let exchanges = load.since(from);
        ensure!(
            exchanges.iter().any(|one| one.server() == Ok(server)),
            "{:?}",
            http::tally(&exchanges)
        );
        Ok(())
    })
}

/// Connections to the servers that lived never failed nor stalled, and every connection kept its server.
fn check_sessions(exchanges: &[Exchange], stall: Duration) -> Result<()> {
    let numbers: BTreeSet<_> = exchanges.iter().map(|one| one.connection).collect();
    let mut to_others = 0;
    for number in numbers {
        let of_one: Vec<_> = exchanges
            .iter()
            .filter(|one| one.connection == number)
            .collect();
        let first = of_one
            .first()
            .context("an empty session")?
            .server()
            .map_err(anyhow::Error::msg)?;
        if first == "web1" {
            continue;
        }
        to_others += 1;
        for one in of_one {
            assert_eq!(one.server(), Ok(first), "session {number}: {one:?}");
            assert!(one.took < stall, "session {number} stalled: {one:?}");
        }
    }
    ensure!(
        to_others == 6,
        "{to_others} of 9 sessions went to the two servers that lived"
    );
    Ok(())
}
