//! The age of a flow is that of the younger of its two entries, wherever it is asked for.

use super::{
    Host,
    flows::{Result, *},
    host::Entry,
};
use crate::{
    abi::{FlowKey, Recipe, WAYS},
    flow::{self, Clock, State},
    table::{
        ANCIENT_TICKS, Cells, Evicted, Outcome, Search,
        age::{is_expired, last_seen_of_flow, make_as_young_as_flow},
        expire, find_near, site,
    },
};

/// A table with one established flow, made in the first second: its packets' key and its replies'.
fn one_flow() -> (Host, [FlowKey; 2]) {
    let host = Host::new(64);
    let key = client(1, TCP);
    let (recipe, _) = insert(&&host, &key, 0, &binding(3, State::Established, 1)).made();
    let reply = flow::partner(&key, &recipe);
    (host, [key, reply])
}

/// A packet of this key comes.
fn used(host: &Host, key: &FlowKey, ticks: u32) {
    let (entry, ..) = hit(&host, key);
    entry.touch(ticks);
}

/// Asks about the flow as whoever has met this key's entry.
fn ask<T>(
    host: &Host,
    key: &FlowKey,
    question: fn(&&Host, (&FlowKey, Entry<'_>, &Recipe), &Clock) -> T,
    clock: Clock,
) -> T {
    let (entry, recipe, _) = hit(&host, key);
    question(&host, (key, entry, &recipe), &clock)
}

#[test]
fn a_flow_is_as_old_as_the_last_packet_of_either_direction() {
    let (host, [key, reply]) = one_flow();
    for (there, back) in [(500, 300), (300, 500), (400, 400)] {
        used(&host, &key, there);
        used(&host, &reply, back);
        for asked in [&key, &reply] {
            let seen = ask(
                &host,
                asked,
                |host, met, clock| last_seen_of_flow(host, met, clock),
                clock(4),
            );
            assert_eq!(seen, there.max(back), "{there} {back}");
        }
    }
    // The ticks may have gone round between the two packets: later is what is less old, not what is larger.
    let now = Clock {
        now: 50,
        ticks_per_second: TICKS,
    };
    used(&host, &key, u32::MAX - 10);
    used(&host, &reply, 20);
    for asked in [&key, &reply] {
        let seen = ask(
            &host,
            asked,
            |host, met, clock| last_seen_of_flow(host, met, clock),
            now,
        );
        assert_eq!(seen, 20);
    }
}

#[test]
fn a_flow_is_idle_past_its_time_where_both_directions_are() {
    let idle = flow::idle_timeout_seconds(State::Established as u8, TCP);
    let (host, [key, reply]) = one_flow();
    let expired = |now| {
        [&key, &reply].map(|asked| {
            ask(
                &host,
                asked,
                |host, met, clock| is_expired(host, met, clock),
                clock(now),
            )
        })
    };
    assert_eq!(expired(1 + idle), [false; 2], "to the last tick");
    assert_eq!(expired(2 + idle), [true; 2]);
    used(&host, &reply, 100 * TICKS);
    assert_eq!(expired(100 + idle), [false; 2], "replies keep it");
    assert_eq!(expired(101 + idle), [true; 2]);
    used(&host, &key, 200 * TICKS);
    assert_eq!(expired(200 + idle), [false; 2], "and the client's packets");
    assert_eq!(expired(201 + idle), [true; 2]);
}

#[test]
fn an_entry_that_looks_older_than_its_flow_is_told_its_age() {
    let (host, [key, reply]) = one_flow();
    let tell = |asked: &FlowKey| {
        ask(
            &host,
            asked,
            |host, met, clock| make_as_young_as_flow(host, met, clock),
            clock(9),
        )
    };
    let ages = || [&key, &reply].map(|key| host.find(key).unwrap().last_seen());
    used(&host, &reply, 2_000);
    assert!(!tell(&reply), "it is the younger one");
    assert_eq!(ages(), [TICKS, 2_000]);
    assert!(tell(&key));
    assert_eq!(ages(), [2_000; 2]);
    assert!(!tell(&key), "it knows");
}

#[test]
fn what_is_ancient_in_both_directions_is_freed_and_nothing_else() {
    let late = Clock {
        now: TICKS + ANCIENT_TICKS + 1,
        ticks_per_second: TICKS,
    };
    let buckets = |host: &Host| u32::try_from(host.words.len()).unwrap() / 8 / WAYS;
    let expire_all = |host: &Host, clock: &Clock| {
        (0..buckets(host)).for_each(|bucket| expire(&host, bucket, clock));
    };
    let (host, keys) = one_flow();
    expire_all(
        &host,
        &Clock {
            now: late.now - 1,
            ..late
        },
    );
    assert_eq!(host.entries().len(), 2, "not yet");
    for key in &keys {
        let used_once = host.clone();
        used(&used_once, key, late.now - 1_000);
        expire_all(&used_once, &late);
        assert_eq!(used_once.entries().len(), 2, "one direction is used");
        used_once.assert_sound();
        let ages = keys.map(|key| used_once.find(&key).unwrap().last_seen());
        assert_eq!(ages, [late.now - 1_000; 2], "and both say so now");
    }
    // Both are, though one is the younger.
    for key in &keys {
        let used_once = host.clone();
        let later = Clock {
            now: late.now + 1_000,
            ..late
        };
        used(&used_once, key, TICKS + 500);
        expire_all(&used_once, &later);
        assert_eq!(used_once.entries(), []);
    }
    expire_all(&host, &late);
    assert_eq!(host.entries(), []);
    host.assert_sound();
    // Beyond the table's end there is nothing.
    expire(&&host, buckets(&host), &late);
}

#[test]
fn an_entry_that_looks_over_gives_way_unless_its_flow_lives() {
    let idle = flow::idle_timeout_seconds(State::Established as u8, TCP);
    let host = Host::new(2);
    let key = client(1, TCP);
    let (recipe, _) = insert(&&host, &key, 0, &binding(3, State::Established, 1)).made();
    let reply = flow::partner(&key, &recipe);
    // No other flow may go.
    for port in 1_000..1_400 {
        let young = binding(port, State::Established, idle);
        insert(&&host, &client(port, TCP), 0, &young);
    }
    let now = binding(9, State::HalfOpen, 10 + idle);
    for asked in [&key, &reply] {
        let lives = host.clone();
        used(&lives, asked, idle * TICKS);
        let full = insert(&&lives, &client(2, TCP), 0, &now);
        assert_eq!(full, Result::Refused(Outcome::Full));
        assert!(lives.find(&key).is_some() && lives.find(&reply).is_some());
        lives.assert_sound();
    }
    let (_, evicted) = insert(&&host, &client(2, TCP), 0, &now).made();
    assert!(evicted.contains(&Evicted::Over), "{evicted:?}");
    assert_eq!((host.find(&key), host.find(&reply)), (None, None));
    host.assert_sound();
}

#[test]
fn a_flow_that_is_over_gives_way_in_the_place_of_an_older_one_that_lives() {
    let idle = flow::idle_timeout_seconds(State::Established as u8, TCP);
    let mut host = Host::new(2);
    let keys = [client(1, TCP), client(2, TCP)];
    for (key, seconds) in keys.iter().zip([1, 5]) {
        insert(&&host, key, 0, &binding(3, State::Established, seconds)).made();
    }
    for port in 1_000..1_400 {
        let young = binding(port, State::Established, idle);
        insert(&&host, &client(port, TCP), 0, &young);
    }
    let now = binding(9, State::HalfOpen, 10 + idle);
    let [lives, over] = &keys;
    let reply = flow::partner(lives, &host.find(lives).unwrap());
    // Whichever of its entries looks old.
    for asked in [lives, &reply] {
        let before = host.clone();
        used(&host, asked, idle * TICKS);
        let (_, evicted) = insert(&&host, &client(3, TCP), 0, &now).made();
        assert!(evicted.contains(&Evicted::Over), "{evicted:?}");
        assert!(host.find(lives).is_some() && host.find(&reply).is_some());
        assert_eq!(host.find(over), None);
        host.assert_sound();
        host = before;
    }
}

#[test]
fn a_known_flow_is_found_near_its_home() {
    let host = &Host::new(1 << 6);
    for port in 0..40 {
        let bound = binding(1 + port, State::Established, 1);
        insert(&host, &client(port, TCP), 0, &bound).made();
    }
    let near =
        |key: &FlowKey, may_be_new| find_near(&host, key, may_be_new).map(|(_, recipe)| recipe);
    let mut neighbours = 0;
    for held in host.entries() {
        let home = site(&host, &held.key).home;
        let first_of_its_print = |held: &super::host::Held| {
            let bucket = held.index / WAYS;
            bucket == home || bucket == home ^ 1
        };
        if !first_of_its_print(&held) {
            continue;
        }
        neighbours += u32::from(held.index / WAYS != home);
        for may_be_new in [false, true] {
            assert_eq!(near(&held.key, may_be_new), Some(held.recipe), "{held:?}");
        }
    }
    assert!(neighbours > 0, "none lies in its neighbour bucket");
    for may_be_new in [false, true] {
        assert_eq!(near(&client(9_999, TCP), may_be_new), None);
    }
    // An entry whose print is gone is still found by who knows that it is there, and not by who does not.
    let held = host.entries()[0];
    assert!(matches!(lookup(&host, &held.key), Search::Hit(..)));
    host.prints[held.index as usize].store(0, std::sync::atomic::Ordering::SeqCst);
    if site(&host, &held.key).home == held.index / WAYS {
        assert_eq!(near(&held.key, false), Some(held.recipe));
        assert_eq!(near(&held.key, true), None);
    }
}
