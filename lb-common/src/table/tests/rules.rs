//! The rules one by one, by one thread.

use core::net::{Ipv4Addr, SocketAddrV4};
use std::{cell::RefCell, collections::BTreeSet, sync::atomic::Ordering::SeqCst, vec, vec::Vec};

use super::{Host, flows::*, host::Noting};
use crate::{
    abi::{FlowEntry, FlowKey, WAYS, field, meta},
    flow::{self, State},
    table::{
        Cells, Event, Evicted, Outcome, REMEMBERED_SECONDS, Remembered, Search, Work,
        forget_replies, hash, overflow, overflowed, overflows, set_state_of_flow, site,
        whose_replies,
    },
};

#[test]
fn both_directions_are_found_and_undo_each_other() {
    let host = &Host::new(64);
    let key = client(1, TCP);
    let (recipe, evicted) = insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    assert_eq!(evicted, [Evicted::Nothing; 2]);
    let there = host.find(&key).unwrap();
    assert_eq!(there, recipe);
    let reply = flow::partner(&key, &there);
    let back = host.find(&reply).unwrap();
    assert_eq!(flow::partner(&reply, &back), key);
    assert_eq!(back.rewritten(), key.destination());
    assert_eq!((there.way, back.way), (7, 9));
    for sum in [1u16, 0x1234, 0xfffe] {
        let over = crate::rewrite::tcp_checksum(sum, there.delta_transport());
        assert_eq!(
            crate::rewrite::tcp_checksum(over, back.delta_transport()),
            sum
        );
    }
    host.assert_sound();
}

#[test]
fn the_second_of_two_writers_gets_the_first_ones_backend() {
    let host = &Host::new(64);
    let key = client(1, TCP);
    let (first, _) = insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    let second = insert(&host, &key, 0, &binding(4, State::HalfOpen, 1));
    assert_eq!(second, Result::Existing(first));
    host.assert_sound();
}

#[test]
fn an_entry_that_the_caller_found_to_be_over_gives_way_with_its_partner() {
    let host = &Host::new(64);
    let key = client(1, TCP);
    let (old, _) = insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    let Search::Hit(_, _, tag) = lookup(&host, &key) else {
        panic!()
    };
    insert(&host, &key, tag, &binding(4, State::HalfOpen, 1)).made();
    assert_eq!(host.find(&key).unwrap().backend(), 4);
    assert_eq!(host.find(&flow::partner(&key, &old)), None);
    assert_eq!(host.entries().len(), 2);
    let again = insert(&host, &key, tag, &binding(5, State::HalfOpen, 1));
    assert!(
        matches!(again, Result::Existing(_)),
        "a stale judgement: {again:?}"
    );
    host.assert_sound();
}

#[test]
fn the_reply_of_a_living_flow_is_not_taken() {
    let host = &Host::new(64);
    let first = client(1, TCP);
    insert(&host, &first, 0, &binding(3, State::HalfOpen, 1)).made();
    let vip = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 11), 80);
    let second = FlowKey::new(first.source(), vip, TCP);
    assert_eq!(
        insert(&host, &second, 0, &binding(3, State::HalfOpen, 1)),
        Result::Refused(Outcome::Collision)
    );
    set_state(&host, &first, State::Closed);
    insert(&host, &second, 0, &binding(3, State::HalfOpen, 1)).made();
    assert_eq!(host.find(&first), None);
    host.assert_sound();
}

#[test]
fn the_first_empty_way_of_the_home_bucket_is_filled_first() {
    let host = &Host::new(1 << 10);
    let key = client(1, TCP);
    insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    let index = host
        .entries()
        .iter()
        .find(|held| held.key == key)
        .unwrap()
        .index;
    assert_eq!(index, site(&host, &key).home * WAYS);
    assert!(
        host.spills().all(|spills| !spills),
        "it is in its first pair"
    );
}

#[test]
fn a_held_lock_is_waited_for_briefly() {
    let host = &Host::new(2);
    host.locks[0].store(1, SeqCst);
    assert_eq!(
        insert(&host, &client(1, TCP), 0, &binding(1, State::HalfOpen, 1)),
        Result::Refused(Outcome::Contended)
    );
}

#[test]
fn a_flow_that_another_writer_has_made_is_joined_though_the_lock_is_held() {
    let host = &Host::new(2);
    let key = client(1, TCP);
    let bound = binding(1, State::HalfOpen, 1);
    insert(&host, &key, 0, &bound).made();
    host.locks[0].store(1, SeqCst);
    let Search::Hit(_, recipe, tag) = lookup(&host, &key) else {
        panic!()
    };
    let other = binding(2, State::HalfOpen, 1);
    assert_eq!(insert(&host, &key, 0, &other), Result::Existing(recipe));
    assert_eq!(
        insert(&host, &key, tag, &other),
        Result::Refused(Outcome::Contended),
        "the entry that is over is not made anew yet"
    );
}

/// Leaves every entry as another CPU does that is writing it.
fn write_all(host: &Host) {
    for held in host.entries() {
        let entry = host.entry_at(held.index);
        entry.store::<{ field::TAG }>(entry.load::<{ field::TAG }>() | 1);
    }
}

#[test]
fn an_entry_being_written_is_neither_hit_nor_miss() {
    let host = &Host::new(2);
    let key = client(1, TCP);
    insert(&host, &key, 0, &binding(1, State::HalfOpen, 1)).made();
    write_all(host);
    assert!(matches!(lookup(&host, &key), Search::Unstable));
}

#[test]
fn a_late_state_does_not_land_in_another_flow() {
    let host = &Host::new(64);
    let key = client(1, TCP);
    insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    let Search::Hit(entry, recipe, _) = lookup(&host, &key) else {
        panic!()
    };
    let other = client(2, TCP);
    entry.store::<{ field::REST }>(other.rest | (State::HalfOpen as u64) << meta::STATE);
    set_state_of_flow(&host, &key, (entry, &recipe), State::Closed as u8);
    let rest = entry.load::<{ field::REST }>();
    assert_eq!(rest & FlowKey::REST, other.rest);
    assert_eq!(rest >> meta::STATE & 0xff, State::HalfOpen as u64);
}

#[test]
fn a_late_state_does_not_land_in_another_flow_by_way_of_the_partner() {
    let host = &Host::new(64);
    let key = client(1, TCP);
    insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    let Search::Hit(entry, recipe, _) = lookup(&host, &key) else {
        panic!()
    };
    let partner = host.entry_at(u32::try_from(entry.load::<{ field::PARTNER }>()).unwrap());
    let foreign = client(2, TCP).rest | (State::HalfOpen as u64) << meta::STATE;
    partner.store::<{ field::REST }>(foreign);
    set_state_of_flow(&host, &key, (entry, &recipe), State::Closed as u8);
    assert_eq!(partner.load::<{ field::REST }>(), foreign);
}

#[test]
fn hashes_are_even_over_buckets_for_ports_and_for_addresses() {
    for by_port in [true, false] {
        let mut counts = [0u32; 64];
        for number in 0..64_000u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let port = u16::from_be_bytes([high, low]);
            let source = if by_port {
                SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port)
            } else {
                SocketAddrV4::new(Ipv4Addr::new(10, 0, high, low), 40_000)
            };
            let key = FlowKey::new(
                source,
                SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80),
                TCP,
            );
            counts[hash(&key, 0) as usize & 63] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
    }
}

/// What an insert at that time comes to, and which locks it takes.
fn insert_noting(host: &Host, port: u16, seconds: u32) -> (Result, Vec<u32>) {
    let noting = Noting {
        host,
        locks: RefCell::default(),
    };
    let bound = binding(port, State::HalfOpen, seconds);
    let result = insert(&&noting, &client(port, TCP), 0, &bound);
    (result, noting.locks.into_inner())
}

#[test]
fn a_pair_without_a_victim_is_not_searched_again_for_three_seconds() {
    let host = Host::new(2);
    fill(&&host);
    let full = Result::Refused(Outcome::Full);
    assert_eq!(
        insert_noting(&host, 90, 2),
        (full.clone(), vec![]),
        "marked while it was filled"
    );
    assert_eq!(
        insert_noting(&host, 91, 5),
        (full.clone(), vec![0]),
        "seen again"
    );
    assert_eq!(insert_noting(&host, 92, 7), (full.clone(), vec![]));
    // Before the ticks wrapped, or long ago.
    for mark in [0, 1, 0x8000_0000, u32::MAX] {
        host.marks[0].store(mark, SeqCst);
        assert_eq!(
            insert_noting(&host, 93, 100),
            (full.clone(), vec![0]),
            "{mark}"
        );
    }
}

#[test]
fn a_mark_ends_when_the_first_of_the_young_may_go() {
    let host = Host::new(2);
    for (port, seconds) in [(1, 100), (2, 101), (3, 102), (4, 102)] {
        insert(
            &&host,
            &client(port, TCP),
            0,
            &binding(port, State::HalfOpen, seconds),
        )
        .made();
    }
    let full = Result::Refused(Outcome::Full);
    assert_eq!(insert_noting(&host, 90, 102), (full.clone(), vec![0]));
    assert_eq!(insert_noting(&host, 91, 102), (full, vec![]));
    let (result, locks) = insert_noting(&host, 92, 103);
    assert_eq!((result.made().1, locks), ([Evicted::HalfOpen; 2], vec![0]));
    host.assert_sound();
}

#[test]
fn a_flow_that_is_over_and_finds_no_room_again_leaves_no_entry_behind() {
    let host = Host::new(8);
    fill(&&host);
    let mut refused = 0;
    for port in 1_000..1_400 {
        let key = client(port, TCP);
        let host = host.clone();
        let Search::Hit(_, _, tag) = lookup(&&host, &key) else {
            continue;
        };
        set_state(&&host, &key, State::Closed);
        for backend in 1..20 {
            let host = host.clone();
            let again = insert(&&host, &key, tag, &binding(backend, State::HalfOpen, 1));
            if again == Result::Refused(Outcome::Full) {
                refused += 1;
                assert_eq!(host.find(&key), None);
            }
            host.assert_sound();
        }
    }
    assert!(refused > 0, "each found room");
}

/// What a packet of a flow without an entry comes to.
fn without_entry(host: &Host, key: FlowKey, bound: &Work) -> (Outcome, Work) {
    let mut work = Work { key, ..*bound };
    (overflow(&host, &mut work), work)
}

#[test]
fn a_reply_without_an_entry_is_remembered_for_thirty_seconds() {
    let host = Host::new(2);
    let (made, work) = without_entry(&host, client(1, TCP), &binding(3, State::HalfOpen, 10));
    assert_eq!(made, Outcome::Made);
    assert_eq!(host.entries(), []);
    let found = |seconds| overflowed(&&host, &work.reply, &clock(seconds));
    let back = found(10 + REMEMBERED_SECONDS).unwrap();
    assert_eq!((back.rewritten(), back.way), (work.key.destination(), 9));
    assert_eq!(found(11 + REMEMBERED_SECONDS), None);
    assert_eq!(overflowed(&&host, &client(2, TCP), &clock(10)), None);
}

#[test]
fn a_reply_without_an_entry_says_whose_it_is() {
    let host = Host::new(2);
    let bound = binding(3, State::HalfOpen, 10_000);
    assert!(!overflows(&&host, &client(1, TCP), &bound.clock));
    let (_, mut work) = without_entry(&host, client(1, TCP), &bound);
    for key in [&work.key, &work.reply] {
        assert!(overflows(&&host, key, &bound.clock));
    }
    assert_eq!(whose_replies(&&host, &mut work), Remembered::Its);
    work.backend_port ^= 1;
    assert_eq!(whose_replies(&&host, &mut work), Remembered::Nobodys);
    work.backend_port ^= 1;
    let vip = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 11), 80);
    work.key = FlowKey::new(work.key.source(), vip, TCP);
    assert_eq!(whose_replies(&&host, &mut work), Remembered::Anothers);
    let forgotten = host.clone();
    forget_replies(&&forgotten, &work);
    assert_eq!(whose_replies(&&forgotten, &mut work), Remembered::Nobodys);
    work.clock = clock(10_001 + REMEMBERED_SECONDS);
    assert_eq!(whose_replies(&&host, &mut work), Remembered::Nobodys);
    let much_later = clock(10_000 + 2 * REMEMBERED_SECONDS);
    assert!(!overflows(&&host, &work.reply, &much_later));
}

#[test]
fn a_reply_that_is_another_flows_is_not_taken_without_an_entry_either() {
    let bound = binding(3, State::HalfOpen, 10);
    let vip = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 11), 80);
    let [first, second] = [
        client(1, TCP),
        FlowKey::new(client(1, TCP).source(), vip, TCP),
    ];
    // Without an entry.
    let host = Host::new(64);
    assert_eq!(without_entry(&host, first, &bound).0, Outcome::Made);
    assert_eq!(without_entry(&host, second, &bound).0, Outcome::Collision);
    assert_eq!(
        without_entry(&host, first, &bound).0,
        Outcome::Made,
        "its own"
    );
    // With one, which is found first, over or not.
    for state in [State::HalfOpen, State::Closed] {
        let host = Host::new(64);
        insert(&&host, &first, 0, &bound).made();
        set_state(&&host, &first, state);
        assert_eq!(without_entry(&host, second, &bound).0, Outcome::Collision);
    }
}

#[test]
fn a_free_place_is_taken_whatever_the_mark_says() {
    let host = Host::new(2);
    insert(
        &&host,
        &client(1, TCP),
        0,
        &binding(1, State::HalfOpen, 100),
    )
    .made();
    host.marks[0].store(102 * TICKS, SeqCst);
    insert(
        &&host,
        &client(2, TCP),
        0,
        &binding(2, State::HalfOpen, 100),
    )
    .made();
}

#[test]
fn half_full_almost_every_flow_finds_a_way() {
    let host = &Host::new(1 << 10);
    let mut full = 0;
    for port in 0..1_024 {
        let outcome = insert(
            &host,
            &client(port, TCP),
            0,
            &binding(1 + port % 50, State::Established, 1),
        );
        full += u32::from(outcome == Result::Refused(Outcome::Full));
    }
    host.assert_sound();
    for held in host.entries() {
        assert_eq!(host.find(&held.key), Some(held.recipe), "{held:?}");
    }
    assert!(host.spills().any(|spills| spills) && host.spills().any(|spills| !spills));
    assert!(
        full < 20,
        "{full} of 1,024 flows found no way in a table that is half full"
    );
}

#[test]
fn a_reply_s_entry_that_is_being_written_is_waited_for_briefly() {
    let host = Host::new(2);
    let bound = binding(3, State::HalfOpen, 10);
    insert(&&host, &client(1, TCP), 0, &bound).made();
    write_all(&host);
    let (outcome, _) = without_entry(&host, client(1, TCP), &bound);
    assert_eq!(outcome, Outcome::Contended);
}

#[test]
fn events_have_names_of_their_own() {
    let names: BTreeSet<_> = Event::ALL.into_iter().map(Event::name).collect();
    assert_eq!(names.len(), Event::ALL.len());
    assert!(
        names.contains("evicted_over") && names.contains("contended"),
        "{names:?}"
    );
}

#[test]
fn an_entry_names_its_partner_and_keeps_all_but_its_age_when_it_is_used() {
    let host = &Host::new(64);
    let key = client(1, TCP);
    insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)).made();
    let entries = host.entries();
    assert_eq!(entries.len(), 2);
    for held in &entries {
        let words = &host.snapshot()[held.index as usize * 8..][..8];
        let entry = FlowEntry {
            words: words.try_into().unwrap(),
        };
        assert_eq!(entry.partner(), held.partner);
        let later = held.recipe.used_at(77);
        assert_eq!(
            (later.last_seen(), later.service()),
            (77, held.recipe.service())
        );
        assert_eq!(later.used_at(held.recipe.last_seen()), held.recipe);
    }
}
