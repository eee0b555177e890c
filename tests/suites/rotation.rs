//! Exact round robin: the k-th connection goes to backend k mod n, however many CPUs and connections there are.

use anyhow::{Context, Result};
use lb_tests::http::{self, Exchange};
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

#[test]
fn a_thousand_connections_take_strict_turns_over_three_backends_two_arm() -> Result<()> {
    strict_turns(Arms::Two, 1_000)
}

#[test]
fn a_thousand_connections_take_strict_turns_over_three_backends_one_arm() -> Result<()> {
    strict_turns(Arms::One, 1_000)
}

#[test]
fn ten_thousand_connections_at_once_are_spread_evenly_two_arm() -> Result<()> {
    even_crowd(Arms::Two, 10_000)
}

#[test]
fn two_thousand_connections_at_once_are_spread_evenly_one_arm() -> Result<()> {
    even_crowd(Arms::One, 2_000)
}

fn strict_turns(arms: Arms, connections: usize) -> Result<()> {
    let web = Web::start(Topology::alone(arms, 3)?, None)?;
    let exchanges = web.client().sequence(connections)?;
    assert_eq!(
        counts(&exchanges),
        even(connections, 3),
        "{:?}",
        http::tally(&exchanges)
    );
    let order: Vec<_> = exchanges
        .iter()
        .map(Exchange::server)
        .collect::<Result<_, _>>()
        .map_err(anyhow::Error::msg)?;
    for (number, server) in order.iter().enumerate().skip(3) {
        let before = order[number - 3];
        assert_eq!(
            *server,
            before,
            "connection {number} broke the turn: {:?}",
            &order[number - 3..=number]
        );
    }
    Ok(())
}

fn even_crowd(arms: Arms, connections: usize) -> Result<()> {
    let web = Web::start(Topology::alone(arms, 3)?, None)?;
    let exchanges = web.client().crowd(connections)?;
    let failures = http::failures(&exchanges);
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(
        counts(&exchanges),
        even(connections, 3),
        "{:?}",
        http::tally(&exchanges)
    );
    let status = web.agent.status()?;
    let service = status.services.first().context("no service")?;
    assert_eq!(
        service.traffic.new_flows,
        u64::try_from(connections)?,
        "flows made: {service:#?}"
    );
    Ok(())
}

/// How many each server answered, the largest first.
fn counts(exchanges: &[Exchange]) -> Vec<usize> {
    let mut counts: Vec<_> = http::tally(exchanges).into_values().collect();
    counts.sort_unstable();
    counts.reverse();
    counts
}

/// The most even split, the largest part first.
fn even(total: usize, parts: usize) -> Vec<usize> {
    (0..parts)
        .map(|part| total / parts + usize::from(part < total % parts))
        .collect()
}
