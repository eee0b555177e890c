//! A server whose replies go past the balancer, the commonest mistake in mode `nat`: it is up, and half the requests fail.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::agent::SOON;
use lb_tests::agent::config::Check;
use lb_tests::topology::{Arms, GATEWAY, Topology, VIP};
use lb_tests::web::Web;
use lb_tests::{command, link, poll};

#[test]
fn a_server_whose_route_leads_past_the_balancer_is_named_with_the_command_that_mends_it()
-> Result<()> {
    let web = Web::start(past_the_balancer()?, Some(Check::http()))?;
    let curl = || is_answered(&web);
    let missing = poll::until(Duration::from_mins(1), "the status to name web1", || {
        curl()?;
        let missing = web.agent.backend("www", "web1")?.no_replies;
        missing.context("web1 is not named")
    })?;
    let row = web.agent.backend("www", "web1")?;
    assert_eq!(
        (row.state.as_str(), row.in_rotation),
        ("up", true),
        "{row:?}"
    );
    let way = format!("ip route replace default via {GATEWAY}");
    assert_eq!(missing.help, format!("on the server `{way}`"));
    assert!(missing.new_flows >= 5, "{missing:?}");
    let good = web.agent.backend("www", "web0")?;
    assert_eq!(good.no_replies, None, "{good:?}");

    let socket = web.agent.socket().display().to_string();
    let page = command::said(&web.agent.lb(&["status", "--socket", &socket])?);
    assert!(
        page.contains("no replies come back through here") && page.contains(&way),
        "{page}"
    );
    let series = |name: &str| format!("lb_backend_no_replies{{address=\"{name}:80\",backend=");
    let page = web.agent.http("/metrics")?.body;
    for (address, value) in [("10.2.0.11", " 0"), ("10.2.0.12", " 1")] {
        let mut lines = page.lines();
        let line = lines.find(|line| line.starts_with(&series(address)));
        assert!(
            line.is_some_and(|line| line.ends_with(value)),
            "{line:?} in\n{page}"
        );
    }

    // What it says is what helps.
    web.topology.backends[1]
        .netns
        .ip(way.trim_start_matches("ip "))?;
    poll::until(SOON, "web1 to be like any other", || {
        let answered = (curl()?, curl()?);
        let row = web.agent.backend("www", "web1")?;
        ensure!(
            answered == (true, true) && row.no_replies.is_none(),
            "{answered:?}, {row:?}"
        );
        Ok(())
    })
}

#[test]
fn a_server_that_sends_only_the_service_s_answers_through_the_balancer_is_enough() -> Result<()> {
    let web = Web::start(past_the_balancer()?, Some(Check::http()))?;
    poll::until(SOON, "a request that fails", || {
        ensure!(!is_answered(&web)?, "it was answered");
        Ok(())
    })?;
    let server = &web.topology.backends[1].netns;
    server.ip("rule add ipproto tcp sport 80 table 80")?;
    server.ip(&format!("route add default via {GATEWAY} table 80"))?;
    // In turn, so that each pair has one of that server's.
    poll::until(SOON, "answers of both", || {
        ensure!(
            is_answered(&web)? && is_answered(&web)?,
            "one was not answered"
        );
        Ok(())
    })?;
    let everything_else = server.ip("route get 192.0.2.1")?;
    ensure!(
        everything_else.contains("via 10.9.0.1"),
        "{everything_else}"
    );
    Ok(())
}

/// Two servers, the second of which has another router for its default route, which the client is here.
fn past_the_balancer() -> Result<Topology> {
    let topology = Topology::new(Arms::Two, 2)?;
    let (server, client) = (&topology.backends[1], &topology.client);
    let (ours, theirs) = (server.interface("past"), client.interface("past"));
    link::veth(ours, theirs)?;
    ours.add_address("10.9.0.2/24")?;
    theirs.add_address("10.9.0.1/24")?;
    server.netns.ip("route replace default via 10.9.0.1")?;
    Ok(topology)
}

/// Whether a request gets its answer in a time in which every living server answers.
fn is_answered(web: &Web) -> Result<bool> {
    let line = format!("curl --silent --max-time 0.3 http://{VIP}/");
    let output = web.topology.client.netns.words(&line).output()?;
    Ok(output.status.success())
}
