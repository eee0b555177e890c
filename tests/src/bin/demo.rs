//! The balancer at work, in a minute: a client, the balancer and two web servers in network namespaces.
//!
//! Every sentence that is printed as a fact was checked; the first that does not hold ends the demo with an error.
//! `--keep` leaves everything running afterwards and says what to try; Ctrl-C removes it.

use std::env;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::agent::Config;
use lb_tests::agent::config::{Check, METRICS};
use lb_tests::http::load::Load;
use lb_tests::http::{self, Exchange};
use lb_tests::lateness::Lateness;
use lb_tests::poll::{self, SOON};
use lb_tests::screen::{Colour, Screen};
use lb_tests::teardown;
use lb_tests::topology::{Arms, BALANCER, CLIENT, Topology, VIP};
use lb_tests::web::Web;

/// Requests of the first act.
const REQUESTS: usize = 100;
/// What a detection may be late by, beside what the agent had to wait for a CPU.
const GRACE: Duration = Duration::from_millis(100);
/// Requests a second while a server dies.
const RATE: u32 = 200;
const SERVERS: [(&str, Colour); 2] = [("web0", Colour::Blue), ("web1", Colour::Yellow)];

fn main() -> ExitCode {
    let screen = Screen::new();
    let outcome = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => demo(screen, false),
        [keep] if keep == "--keep" => demo(screen, true),
        _ => Err(anyhow::anyhow!("usage: demo [--keep]")),
    };
    if outcome.is_ok() {
        screen.line(screen.paint(Colour::Green, "demo: ok"));
    }
    screen.finish(outcome)
}

fn demo(screen: Screen, keep: bool) -> Result<()> {
    let check = Check::http();
    let mut web = raise_curtain(screen, &check)?;
    turns(screen, &web)?;
    death_and_return(screen, &mut web, &check)?;
    turns(screen, &web)?;
    metrics(screen, &web)?;
    if keep {
        what_to_try(screen, &web);
        teardown::until_signal();
        screen.line("");
    }
    remove(screen, web)
}

/// Makes the network, the servers and the agent, and says what is where.
fn raise_curtain(screen: Screen, check: &Check) -> Result<Web> {
    screen.heading("The network, made of namespaces and veth pairs on this machine");
    let topology = Topology::alone(Arms::Two, 2)?;
    let [first, second] = [0, 1].map(|number| topology.backends[number].address);
    screen.line(format_args!(
        "
                           XDP             XDP        ┌── web0  {first}  nginx
    client ─────────── front [ balancer ] back ───────┤
    {CLIENT:<19}{BALANCER:<31}└── web1  {second}  nginx
                       VIP {VIP}:80
"
    ));
    let config = Config::web(&topology, Some(check.clone()));
    let mut web = Web::with_config(topology, &config)?;
    web.agent.be_quiet();
    let status = web.agent.status()?;
    let program = status.program.context("no program is loaded")?;
    for interface in &status.interfaces {
        screen.line(format_args!(
            "  {}: program {} attached, {}",
            interface.name, program.id, interface.mode
        ));
    }
    let detail = format!(
        "  every {} ms an HTTP check of each server: {} failures take it out, {} passes bring it back",
        check.interval.as_millis(),
        check.fall,
        check.rise
    );
    screen.line(detail);
    Ok(web)
}

/// 100 requests one after the other: half and half, in turns.
fn turns(screen: Screen, web: &Web) -> Result<()> {
    screen.heading(format_args!(
        "{REQUESTS} requests to http://{VIP}/, each over a new connection"
    ));
    let exchanges = web.client().sequence(REQUESTS)?;
    let failures = http::failures(&exchanges);
    ensure!(failures.is_empty(), "requests failed: {failures:#?}");
    let order: Vec<&str> = exchanges
        .iter()
        .filter_map(|one| one.server().ok())
        .collect();
    let shown: Vec<_> = order
        .iter()
        .take(12)
        .map(|server| named(screen, server))
        .collect();
    screen.line(format_args!("  in turns: {} ..", shown.join(" ")));
    let tally = http::tally(&exchanges);
    for (server, colour) in SERVERS {
        let count = tally.get(server).copied().unwrap_or(0);
        let bar = screen.paint(colour, "█".repeat(count / 2));
        screen.line(format_args!("  {server} {count:>4}  {bar}"));
        ensure!(
            count == REQUESTS / 2,
            "{server} answered {count} of {REQUESTS}: {tally:?}"
        );
    }
    let broken = order.windows(2).position(|pair| pair[0] == pair[1]);
    ensure!(
        broken.is_none(),
        "two in a row for the same server: {order:?}"
    );
    Ok(())
}

/// A server is killed under load, found dead, and comes back.
fn death_and_return(screen: Screen, web: &mut Web, check: &Check) -> Result<()> {
    screen.heading(format_args!(
        "{RATE} requests a second, and web1 is killed with -9"
    ));
    let load = Load::constant(&web.client(), RATE);
    requests(&load, SystemTime::UNIX_EPOCH, 100)?;

    let lateness = Lateness::of(web.agent.pid()?)?;
    let killed = SystemTime::now();
    web.servers[1].kill()?;
    let down = web
        .agent
        .wait_for_event(SOON, "web1 is down", killed, |event| {
            event.is_backend_state("web1", "down")
        })?;
    let allowed = check.detection() + GRACE + lateness.so_far()?;
    requests(&load, down.time, 200)?;
    let restarted = SystemTime::now();
    web.servers[1].restart()?;
    let up = web
        .agent
        .wait_for_event(SOON, "web1 is up", restarted, |event| {
            event.is_backend_state("web1", "up")
        })?;
    poll::until(SOON, "an answer of web1", || {
        let answered = load
            .since(up.time)
            .iter()
            .any(|one| one.server() == Ok("web1"));
        if answered { Ok(()) } else { Err("none") }
    })?;

    let exchanges = load.stop()?;
    let failed: Vec<_> = exchanges
        .iter()
        .filter(|one| one.outcome.is_err())
        .cloned()
        .collect();
    let moment = |at: SystemTime, what: &dyn Display| {
        let passed = at.duration_since(killed).unwrap_or_default();
        screen.line(format_args!("  {:>6} ms  {what}", passed.as_millis()));
    };
    moment(killed, &"kill -9");
    if let Some(last) = failed.last() {
        moment(last.started, &"the last request that went to web1");
    }
    let reason = down.field("reason").to_owned();
    moment(down.time, &format!("the agent has taken it out: {reason}"));
    moment(restarted, &"web1 is started again");
    moment(
        up.time,
        &format!("the agent has put it back: {}", up.field("reason")),
    );
    let between = |from, to| {
        exchanges
            .iter()
            .filter(|one| (from..to).contains(&one.started))
            .count()
    };
    screen.line(format_args!(
        "  {} of the {} requests in the first {} ms failed, none of the {} that came later",
        screen.paint(Colour::Red, failed.len()),
        between(killed, down.time),
        down.time.duration_since(killed)?.as_millis(),
        screen.paint(
            Colour::Green,
            exchanges
                .iter()
                .filter(|one| one.started >= down.time)
                .count()
        ),
    ));
    hold(allowed, killed, down.time, restarted, &exchanges)
}

/// What was printed about the death has to be as promised.
fn hold(
    allowed: Duration,
    killed: SystemTime,
    down: SystemTime,
    restarted: SystemTime,
    exchanges: &[Exchange],
) -> Result<()> {
    let late = down.duration_since(killed)?;
    ensure!(
        late <= allowed,
        "the death was seen after {late:?}, promised are {allowed:?}"
    );
    let later: Vec<_> = exchanges
        .iter()
        .filter(|one| one.started >= down)
        .cloned()
        .collect();
    let failures = http::failures(&later);
    ensure!(
        failures.is_empty(),
        "requests after the detection failed: {failures:#?}"
    );
    let early = later
        .iter()
        .filter(|one| one.started < restarted && one.server() == Ok("web1"))
        .count();
    ensure!(
        early == 0,
        "{early} requests went to web1 while it was down"
    );
    Ok(())
}

/// The metrics that tell the story.
fn metrics(screen: Screen, web: &Web) -> Result<()> {
    screen.heading(format_args!(
        "The same story at http://{METRICS}/metrics, for Prometheus"
    ));
    let page = web.agent.http("/metrics")?.body;
    let told = [
        "lb_backend_up{",
        "lb_backend_new_flows_total{",
        "lb_health_checks_total{",
        "lb_service_new_flows_total{",
    ];
    for series in told {
        let lines: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with(series))
            .collect();
        ensure!(!lines.is_empty(), "no {series}..}} on the page:\n{page}");
        for line in lines {
            screen.line(format_args!("  {line}"));
        }
    }
    let up = page
        .lines()
        .filter(|line| line.starts_with("lb_backend_up{") && line.ends_with(" 1"))
        .count();
    ensure!(up == 2, "{up} backends are up by the metrics");
    let failed = page.lines().find(|line| {
        line.starts_with("lb_health_checks_total{")
            && line.contains("fail")
            && line.contains("web1")
    });
    match failed.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()) {
        Some(count) if count >= 3.0 => Ok(()),
        _ => bail!("the failed checks of web1 are not on the page: {failed:?}"),
    }
}

fn what_to_try(screen: Screen, web: &Web) {
    let client = web.topology.client.netns.name();
    let balancer = web.topology.balancer.netns.name();
    let socket = web.agent.socket();
    let lb = lb_tests::agent::binary()
        .map_or_else(|_| "lb".to_owned(), |path| path.display().to_string());
    screen.heading("It stays until Ctrl-C. As root, in another terminal:");
    let mut commands = vec![
        format!("ip netns exec {client} curl http://{VIP}/"),
        format!("{lb} status --socket {}", socket.display()),
        format!("{lb} status --socket {} --watch", socket.display()),
        format!("ip netns exec {balancer} curl http://{METRICS}/metrics"),
        format!("$EDITOR {}", web.agent.config_file().display()),
        format!("{lb} reload --socket {}", socket.display()),
    ];
    for server in &web.servers {
        commands.push(format!("kill -9 {}    # {}", server.pid(), server.name()));
        commands.push(format!(
            "{}    # {} again",
            server.command_line(),
            server.name()
        ));
    }
    for command in commands {
        screen.line(format_args!("  {}", screen.paint(Colour::Bold, command)));
    }
}

/// Takes everything down and makes sure that it is gone.
fn remove(screen: Screen, mut web: Web) -> Result<()> {
    let ended = web.agent.terminate()?;
    ensure!(ended.success(), "the agent ended with {ended} on SIGTERM");
    let pins = web.agent.scratch().pins()?;
    ensure!(pins.is_empty(), "the agent left pins: {pins:?}");
    let directory = web.agent.scratch().file("");
    drop(web);
    let left = teardown::left_of_this_process()?;
    ensure!(left.is_empty(), "still there: {left:?}");
    ensure!(
        !directory.exists(),
        "{} is still there",
        directory.display()
    );
    screen.line(screen.paint(
        Colour::Grey,
        "\nThe agent has detached the program, and the namespaces are removed.",
    ));
    Ok(())
}

/// Waits until so many requests that started at `from` or later have ended.
fn requests(load: &Load, from: SystemTime, count: usize) -> Result<()> {
    poll::until(SOON, format!("{count} requests"), || {
        let ended = load.since(from).len();
        ensure!(ended >= count, "{ended} ended");
        Ok(())
    })
}

fn named(screen: Screen, server: &str) -> String {
    let colour = SERVERS.iter().find(|(name, _)| *name == server);
    colour.map_or_else(
        || server.to_owned(),
        |(_, colour)| screen.paint(*colour, server),
    )
}
