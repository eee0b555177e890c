//! Whom an insert evicts, and how old an entry is.

use std::vec::Vec;

use super::{Host, flows::*};
use crate::{
    flow::{Clock, State},
    table::{Evicted, Outcome, Work},
};

/// Fills a table of one pair with flows in the states given, then makes another flow.
fn squeeze(states: &[(State, u32)], protocol: u8) -> (Host, Result) {
    let table = Host::new(2);
    let host = &table;
    for (number, (state, seconds)) in states.iter().enumerate() {
        let key = client(u16::try_from(number).unwrap() + 1, protocol);
        insert(
            &host,
            &key,
            0,
            &binding(u16::try_from(number).unwrap() + 1, *state, *seconds),
        )
        .made();
    }
    let outcome = insert(
        &host,
        &client(100, protocol),
        0,
        &binding(100, State::HalfOpen, 100),
    );
    (table, outcome)
}

#[test]
fn victims_are_sought_in_the_order_of_what_their_flows_have_shown() {
    use State::{Answered, Closed, Established, HalfOpen, Unconfirmed};
    let gone = |host: &Host| -> Vec<u16> {
        (1..=4)
            .filter(|port| host.find(&client(*port, TCP)).is_none())
            .collect()
    };
    // A flow takes two of the eight ways, so four flows fill the pair.
    let (host, outcome) = squeeze(
        &[
            (Established, 90),
            (HalfOpen, 90),
            (Closed, 99),
            (HalfOpen, 80),
        ],
        TCP,
    );
    assert_eq!(outcome.made().1, [Evicted::Over; 2], "both of its entries");
    assert_eq!(gone(&host), [3]);
    host.assert_sound();

    let (host, outcome) = squeeze(
        &[
            (Established, 90),
            (HalfOpen, 95),
            (Answered, 85),
            (Unconfirmed, 90),
        ],
        TCP,
    );
    assert_eq!(outcome.made().1[0], Evicted::HalfOpen);
    assert_eq!(gone(&host), [3], "the oldest half-open one");
    host.assert_sound();

    let (host, outcome) = squeeze(
        &[
            (Established, 90),
            (HalfOpen, 98),
            (HalfOpen, 99),
            (Established, 90),
        ],
        TCP,
    );
    assert_eq!(
        outcome,
        Result::Refused(Outcome::Full),
        "none younger than three seconds"
    );
    assert_eq!(gone(&host), Vec::<u16>::new());
    host.assert_sound();

    let (_, outcome) = squeeze(
        &[
            (Established, 99),
            (State::Unanswered, 99),
            (Established, 99),
            (Established, 99),
        ],
        UDP,
    );
    assert_eq!(outcome.made().1[0], Evicted::Unanswered);
}

#[test]
fn an_answered_udp_flow_is_protected_for_seconds_and_then_only_by_worse_ones() {
    let (host, outcome) = squeeze(&[(State::Established, 90); 4], UDP);
    assert_eq!(outcome, Result::Refused(Outcome::Full));
    host.assert_sound();
    let (host, outcome) = squeeze(
        &[
            (State::Established, 20),
            (State::Established, 10),
            (State::Established, 30),
            (State::Unanswered, 99),
        ],
        UDP,
    );
    assert_eq!(outcome.made().1[0], Evicted::Unanswered);
    host.assert_sound();
    let (host, outcome) = squeeze(
        &[
            (State::Established, 20),
            (State::Established, 10),
            (State::Established, 30),
            (State::Established, 99),
        ],
        UDP,
    );
    assert_eq!(outcome.made().1[0], Evicted::Answered);
    assert_eq!(host.find(&client(2, UDP)), None, "the oldest");
    host.assert_sound();
}

#[test]
fn ages_go_on_where_the_ticks_wrap() {
    let later = |start: u32, seconds: u32, bound: Work| Work {
        clock: Clock {
            now: start.wrapping_add(seconds * TICKS),
            ticks_per_second: TICKS,
        },
        ..bound
    };
    // The ticks wrap ten seconds after `start`.
    let start = 0u32.wrapping_sub(10 * TICKS);
    let table = &Host::new(2);
    for (port, seconds) in [(1, 5), (2, 2), (3, 12), (4, 8)] {
        let bound = later(start, seconds, binding(port, State::HalfOpen, 0));
        insert(&table, &client(port, TCP), 0, &bound).made();
    }
    for (port, seconds, evicted, oldest) in [
        (5, 14, Evicted::HalfOpen, 2),
        (6, 14, Evicted::HalfOpen, 1),
        (7, 14, Evicted::HalfOpen, 4),
        (8, 43, Evicted::Over, 3),
    ] {
        let bound = later(start, seconds, binding(port, State::HalfOpen, 0));
        let (_, seen) = insert(&table, &client(port, TCP), 0, &bound).made();
        assert_eq!(seen, [evicted; 2]);
        assert_eq!(table.find(&client(oldest, TCP)), None, "the oldest goes");
        table.assert_sound();
    }
    let young = later(start, 14, binding(9, State::HalfOpen, 0));
    assert_eq!(
        insert(&table, &client(9, TCP), 0, &young),
        Result::Refused(Outcome::Full),
        "three of 14 seconds, and one that another CPU has made later"
    );
}
