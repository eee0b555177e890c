//! SIGHUP under load: the difference is applied, flows are not touched, and a bad file changes nothing.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::agent::config::{Pool, Service};
use lb_tests::agent::{Config, SOON};
use lb_tests::http::load::Load;
use lb_tests::http::{self, Client};
use lb_tests::topology::{Arms, Topology, VIP};
use lb_tests::web::Web;
use lb_tests::{command, kernel, poll};
use rustix::process::Signal;

#[test]
fn an_added_backend_takes_its_turn_and_flows_stay() -> Result<()> {
    let topology = Topology::new(Arms::Two, 3)?;
    let whole = Config::web(&topology, None);
    let mut part = whole.clone();
    part.pools[0].backends.truncate(2);
    let web = Web::with_config(topology, &part)?;
    let (load, sessions) = busy(&web)?;

    web.agent.reload(&whole)?;
    web.agent.wait_for_state("www", "web2", "unchecked")?;
    web.wait_until_all_serve()?;
    let changed = SystemTime::now();
    enough(&load, changed)?;
    let tally = http::tally(&load.since(changed));
    assert_eq!(tally.len(), 3, "{tally:?}");
    unharmed(load, sessions)
}

#[test]
fn a_removed_backend_gets_no_new_flows_and_keeps_its_old_ones() -> Result<()> {
    let topology = Topology::new(Arms::One, 3)?;
    let mut config = Config::web(&topology, None);
    let web = Web::with_config(topology, &config)?;
    let (load, sessions) = busy(&web)?;

    config.pools[0].backends.remove(1);
    web.agent.reload(&config)?;
    let changed = SystemTime::now();
    enough(&load, changed)?;
    let tally = http::tally(&load.since(changed));
    assert_eq!(
        tally.keys().collect::<Vec<_>>(),
        ["web0", "web2"],
        "{tally:?}"
    );
    goes_on(&sessions, changed, "web1")?;
    unharmed(load, sessions)
}

#[test]
fn weight_zero_drains_a_backend() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let mut config = Config::web(&topology, None);
    let web = Web::with_config(topology, &config)?;
    let (load, sessions) = busy(&web)?;
    config.pools[0].backends[0].weight = 0;
    web.agent.reload(&config)?;
    let changed = SystemTime::now();
    enough(&load, changed)?;
    let tally = http::tally(&load.since(changed));
    assert_eq!(tally.keys().collect::<Vec<_>>(), ["web1"], "{tally:?}");
    unharmed(load, sessions)
}

#[test]
fn a_backend_that_comes_and_goes_again_and_again_keeps_its_flows() -> Result<()> {
    let topology = Topology::new(Arms::Two, 3)?;
    let whole = Config::web(&topology, None);
    let mut part = whole.clone();
    part.pools[0].backends.remove(1);
    let web = Web::with_config(topology, &whole)?;
    let (load, sessions) = busy(&web)?;
    for config in [&part, &whole].into_iter().cycle().take(20) {
        web.agent.reload(config)?;
    }
    web.wait_until_all_serve()?;
    let changed = SystemTime::now();
    enough(&load, changed)?;
    let tally = http::tally(&load.since(changed));
    assert_eq!(
        tally.keys().collect::<Vec<_>>(),
        ["web0", "web1", "web2"],
        "{tally:?}"
    );
    goes_on(&sessions, changed, "web1")?;
    unharmed(load, sessions)
}

#[test]
fn a_service_comes_and_goes_beside_another() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let one = Config::web(&topology, None);
    let two = one
        .clone()
        .pool(Pool::new("second", &topology.backends[1..], 80))
        .service(Service::tcp("second", 8080, "second"));
    let web = Web::with_config(topology, &one)?;
    let (load, sessions) = busy(&web)?;
    let second = Client::new(&web.topology.client.netns, (VIP, 8080));

    assert!(
        second.get("/").is_err(),
        "a service that is not there answers"
    );
    web.agent.reload(&two)?;
    web.wait_until_all_serve()?;
    assert_eq!(
        http::tally(&second.sequence(4)?),
        [("web1".to_owned(), 4)].into()
    );
    web.agent.reload(&one)?;
    let error = format!(
        "{:#}",
        second.get("/").err().context("a removed service answers")?
    );
    ensure!(
        error.contains("refused"),
        "a packet to no service is the host's to answer: {error}"
    );
    // The CPUs know by now that there is no such service.
    web.agent.reload(&two)?;
    assert_eq!(
        http::tally(&second.sequence(4)?),
        [("web1".to_owned(), 4)].into(),
        "the service that came back"
    );
    unharmed(load, sessions)
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    let (load, sessions) = busy(&web)?;
    let good = web.agent.text()?;
    let before = web.agent.status()?;
    let bad = [
        (good.replace("10.2.0.11:80", "10.2.0.11:70000"), "70000"),
        (good.replace("weight = 1", "wieght = 1"), "wieght"),
        (good.replace("10.1.0.100:80", "[fd00::1]:80"), "fd00::1"),
        (good.replace("pool = \"web\"", "pool = \"wbe\""), "wbe"),
        (
            format!(
                "{good}\n[[service]]\nname = \"www\"\naddress = \"10.1.0.9:80\"\nprotocol = \"tcp\"\npool = \"web\"\n"
            ),
            "www",
        ),
        (good.replace("[[service]]", "[[service"), "[[service"),
        (String::new(), "interface"),
    ];
    for (text, place) in bad {
        web.agent.write_text(&text)?;
        web.agent.signal(Signal::HUP)?;
        let error = poll::until(SOON, format!("a word about {place}"), || {
            let said = web.agent.status()?.agent.config_error.context("no error")?;
            ensure!(said.contains(place), "{said}");
            Ok(said)
        })?;
        ensure!(error.contains("lb.toml"), "does not name the file: {error}");
        let socket = web.agent.socket().display().to_string();
        let answer = web.agent.lb(&["reload", "--socket", &socket])?;
        let said = command::said(&answer);
        ensure!(
            answer.status.code() == Some(1),
            "lb reload: {}\n{said}",
            answer.status
        );
        ensure!(
            said.contains(place),
            "lb reload does not name {place}: {said}"
        );
    }
    let after = web.agent.status()?;
    assert_eq!(after.agent.config_loaded, before.agent.config_loaded);
    assert_eq!(after.services.len(), before.services.len());
    web.agent.write_text(&good)?;
    web.agent.signal(Signal::HUP)?;
    poll::until(SOON, "the good file to be taken again", || {
        match web.agent.status()?.agent.config_error {
            None => Ok(()),
            Some(error) => bail!("{error}"),
        }
    })?;
    unharmed(load, sessions)
}

#[test]
fn another_log_level_replaces_the_program_in_the_link_under_load() -> Result<()> {
    let topology = Topology::alone(Arms::Two, 2)?;
    let mut config = Config::web(&topology, None);
    let web = Web::with_config(topology, &config)?;
    let (load, sessions) = busy(&web)?;
    let bpffs = web.agent.scratch().bpffs();
    let before = kernel::links_pinned_in(&bpffs)?;
    assert_eq!(before.len(), 2, "a link for each interface: {before:?}");

    config.data_plane_log = Some("debug".to_owned());
    let status = web.agent.reload(&config)?;
    let program = status.program.context("no program in the status")?;
    assert_eq!(program.log, "debug");
    let after = kernel::links_pinned_in(&bpffs)?;
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(
            (&old.pin, old.id),
            (&new.pin, new.id),
            "the link itself stays"
        );
        assert_ne!(
            old.program,
            new.program,
            "{} still holds the old program",
            new.pin.display()
        );
        assert_eq!(new.program, u64::from(program.id), "{}", new.pin.display());
    }
    let changed = SystemTime::now();
    enough(&load, changed)?;
    unharmed(load, sessions)
}

/// A load of 200 requests a second and six connections that stay, both under way.
fn busy(web: &Web) -> Result<(Load, Load)> {
    // Alone they take exact turns, so that every backend has some; the load that follows shares the rotation with them.
    let sessions = Load::sessions(&web.client(), 6, Duration::from_millis(10));
    poll::until(SOON, "all six sessions", || {
        let exchanges = sessions.so_far();
        let open: BTreeSet<_> = exchanges.iter().map(|one| one.connection).collect();
        ensure!(open.len() == 6, "{open:?}");
        Ok(())
    })?;
    let load = Load::constant(&web.client(), 200);
    enough(&load, SystemTime::UNIX_EPOCH)?;
    Ok((load, sessions))
}

/// Waits until 100 requests that started at `from` or later have ended.
fn enough(load: &Load, from: SystemTime) -> Result<()> {
    poll::until(SOON, "100 requests", || {
        let ended = load.since(from).len();
        ensure!(ended >= 100, "{ended} ended");
        Ok(())
    })
}

/// Waits until a session on this server has had an answer to a request that started at `from` or later.
fn goes_on(sessions: &Load, from: SystemTime, server: &str) -> Result<()> {
    poll::until(SOON, format!("a session on {server} to go on"), || {
        let kept = sessions.since(from);
        let goes_on = kept.iter().any(|one| one.server() == Ok(server));
        ensure!(goes_on, "{:?}", http::tally(&kept));
        Ok(())
    })
}

/// No request failed.
fn unharmed(load: Load, sessions: Load) -> Result<()> {
    for exchanges in [load.stop()?, sessions.stop()?] {
        let failures = http::failures(&exchanges);
        assert!(failures.is_empty(), "{failures:#?}");
    }
    Ok(())
}
