//! The table on the host: the rules one by one, then random sequences, then threads.

use core::net::{Ipv4Addr, SocketAddrV4};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    vec::Vec,
};

use super::{find, home, *};
use crate::{
    abi::{Recipe, WAYS, field, meta},
    flow::{self, Clock, State},
};

const TICKS: u32 = 250;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A table in the memory of the test.
struct Host {
    words: Vec<AtomicU64>,
    locks: Vec<AtomicU64>,
}

#[derive(Clone, Copy)]
struct Entry<'a>(&'a [AtomicU64]);

impl Cells for Entry<'_> {
    fn load<const WORD: usize>(self) -> u64 {
        self.0[WORD].load(SeqCst)
    }

    fn store<const WORD: usize>(self, value: u64) {
        self.0[WORD].store(value, SeqCst);
    }

    fn compare_exchange<const WORD: usize>(self, old: u64, new: u64) -> u64 {
        match self.0[WORD].compare_exchange(old, new, SeqCst, SeqCst) {
            Ok(held) | Err(held) => held,
        }
    }

    fn publish<const WORD: usize>(self, value: u64) {
        self.0[WORD].store(value, SeqCst);
    }

    fn touch(self, now: u32) {
        let word = &self.0[field::SERVICE];
        word.store(
            word.load(SeqCst) & 0xffff_ffff | u64::from(now) << 32,
            SeqCst,
        );
    }
}

impl Host {
    fn new(buckets: usize) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            words: zeros(buckets * 32),
            locks: zeros(buckets / 2),
        }
    }

    fn entry_at(&self, index: u32) -> Entry<'_> {
        Entry(&self.words[index as usize * 8..][..8])
    }

    fn find(&self, key: &FlowKey) -> Option<Recipe> {
        match find(&self, key) {
            Search::Hit(_, recipe, _) => Some(recipe),
            Search::Miss | Search::Unstable => None,
        }
    }

    /// Every entry in use, with its index.
    fn entries(&self) -> Vec<(u32, FlowKey, Recipe, u32)> {
        (0..u32::try_from(self.words.len() / 8).unwrap())
            .filter_map(|index| {
                let words: [u64; 8] =
                    core::array::from_fn(|word| self.words[index as usize * 8 + word].load(SeqCst));
                let (key, recipe) = crate::abi::FlowEntry { words }.read()?;
                Some((
                    index,
                    key,
                    recipe,
                    u32::try_from(words[field::PARTNER]).unwrap(),
                ))
            })
            .collect()
    }

    /// Laws that hold whenever no writer is at work.
    fn assert_sound(&self) {
        let entries = self.entries();
        let mut keys: Vec<_> = entries.iter().map(|(_, key, ..)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), entries.len(), "a key has two entries");
        for (index, key, recipe, partner) in &entries {
            let other = entries.iter().find(|(at, ..)| at == partner);
            let (_, other_key, other_recipe, back) = other.expect("an entry without its partner");
            assert_eq!((*other_key, *back), (flow::partner(key, recipe), *index));
            assert_ne!(other_recipe.is_reverse(), recipe.is_reverse());
            assert_eq!(other_recipe.backend(), recipe.backend());
        }
        assert!(
            self.locks.iter().all(|lock| lock.load(SeqCst) & 1 == 0),
            "a lock is held"
        );
    }
}

impl<'a> Memory for &'a Host {
    type Entry = Entry<'a>;
    type Bucket = u32;

    fn bucket(&self, index: u32) -> Option<u32> {
        Some(index & self.mask())
    }

    fn entry(&self, bucket: u32, way: u32) -> Entry<'a> {
        let host: &'a Host = self;
        host.entry_at(bucket * WAYS + way)
    }

    fn lock(&self, pair: u32) -> bool {
        let lock = &self.locks[pair as usize];
        (0..LOCK_TRIES).any(|_| {
            let free = lock.load(SeqCst) & !1;
            lock.compare_exchange(free, free | 1, SeqCst, SeqCst)
                .is_ok()
        })
    }

    fn unlock(&self, pair: u32) {
        self.locks[pair as usize].fetch_and(!1, SeqCst);
    }

    fn note_spill(&self, pair: u32) {
        self.locks[pair as usize].fetch_or(2, SeqCst);
    }

    fn has_spilled(&self, pair: u32) -> bool {
        self.locks[pair as usize].load(SeqCst) & 2 != 0
    }

    fn mask(&self) -> u32 {
        u32::try_from(self.words.len() / 32 - 1).unwrap()
    }

    fn seed(&self) -> u64 {
        0x1234_5678_9abc_def0
    }
}

fn clock(seconds: u32) -> Clock {
    Clock {
        now: seconds * TICKS,
        ticks_per_second: TICKS,
    }
}

fn client(port: u16, protocol: u8) -> FlowKey {
    let source = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), port);
    FlowKey::new(
        source,
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80),
        protocol,
    )
}

/// What an insert came to, with what it left in its [`Work`].
#[derive(Debug, PartialEq)]
enum Result {
    Made(Recipe, [Evicted; 2]),
    Existing(Recipe),
    Refused(Outcome),
}

fn binding(backend: u16, state: State, seconds: u32) -> Work {
    let [high, low] = backend.to_be_bytes();
    Work {
        backend_address: u32::from_ne_bytes([10, 0, high, low]),
        backend_port: 8080u16.to_be(),
        backend,
        backend_generation: 1,
        state: state as u8,
        service: 1,
        ingress_print: 7,
        way: 9,
        clock: clock(seconds),
        ..Work::default()
    }
}

fn insert(host: &Host, key: &FlowKey, over: u64, binding: &Work) -> Result {
    let mut work = Work {
        key: *key,
        over,
        ..*binding
    };
    match super::insert(&host, &mut work) {
        Outcome::Made => Result::Made(work.there, work.evicted()),
        Outcome::Existing => Result::Existing(work.there),
        other => Result::Refused(other),
    }
}

fn made(result: Result) -> (Recipe, [Evicted; 2]) {
    match result {
        Result::Made(recipe, evicted) => (recipe, evicted),
        other => panic!("expected a flow, saw {other:?}"),
    }
}

fn set_state(host: &Host, key: &FlowKey, state: State) {
    let Search::Hit(entry, recipe, _) = find(&host, key) else {
        panic!("no entry")
    };
    set_state_of_flow(&host, key, (entry, &recipe), state as u8);
}

#[test]
fn both_directions_are_found_and_undo_each_other() {
    let host = Host::new(64);
    let key = client(1, TCP);
    let (recipe, evicted) = made(insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)));
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
    let host = Host::new(64);
    let key = client(1, TCP);
    let (first, _) = made(insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)));
    let second = insert(&host, &key, 0, &binding(4, State::HalfOpen, 1));
    assert_eq!(second, Result::Existing(first));
    host.assert_sound();
}

#[test]
fn an_entry_that_the_caller_found_to_be_over_gives_way_with_its_partner() {
    let host = Host::new(64);
    let key = client(1, TCP);
    let (old, _) = made(insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)));
    let Search::Hit(_, _, tag) = find(&&host, &key) else {
        panic!()
    };
    made(insert(&host, &key, tag, &binding(4, State::HalfOpen, 1)));
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
    let host = Host::new(64);
    let first = client(1, TCP);
    made(insert(&host, &first, 0, &binding(3, State::HalfOpen, 1)));
    let vip = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 11), 80);
    let second = FlowKey::new(first.source(), vip, TCP);
    assert_eq!(
        insert(&host, &second, 0, &binding(3, State::HalfOpen, 1)),
        Result::Refused(Outcome::Collision)
    );
    set_state(&host, &first, State::Closed);
    made(insert(&host, &second, 0, &binding(3, State::HalfOpen, 1)));
    assert_eq!(host.find(&first), None);
    host.assert_sound();
}

/// Fills a table of one pair with flows in the states given, then makes another flow.
fn squeeze(states: &[(State, u32)], protocol: u8) -> (Host, Result) {
    let host = Host::new(2);
    for (number, (state, seconds)) in states.iter().enumerate() {
        let key = client(u16::try_from(number).unwrap() + 1, protocol);
        made(insert(
            &host,
            &key,
            0,
            &binding(u16::try_from(number).unwrap() + 1, *state, *seconds),
        ));
    }
    let outcome = insert(
        &host,
        &client(100, protocol),
        0,
        &binding(100, State::HalfOpen, 100),
    );
    (host, outcome)
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
    assert_eq!(made(outcome).1, [Evicted::Over; 2], "both of its entries");
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
    assert_eq!(made(outcome).1[0], Evicted::HalfOpen);
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
    assert_eq!(gone(&host), []);
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
    assert_eq!(made(outcome).1[0], Evicted::Unanswered);
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
    assert_eq!(made(outcome).1[0], Evicted::Unanswered);
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
    assert_eq!(made(outcome).1[0], Evicted::Answered);
    assert_eq!(host.find(&client(2, UDP)), None, "the oldest");
    host.assert_sound();
}

#[test]
fn the_first_empty_way_of_the_home_bucket_is_filled_first() {
    let host = Host::new(1 << 10);
    let key = client(1, TCP);
    made(insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)));
    let index = host
        .entries()
        .iter()
        .find(|(_, held, ..)| *held == key)
        .unwrap()
        .0;
    assert_eq!(index, home(&&host, &key) * WAYS);
}

#[test]
fn a_held_lock_is_waited_for_briefly() {
    let host = Host::new(2);
    host.locks[0].store(1, SeqCst);
    assert_eq!(
        insert(&host, &client(1, TCP), 0, &binding(1, State::HalfOpen, 1)),
        Result::Refused(Outcome::Contended)
    );
}

#[test]
fn an_entry_being_written_is_neither_hit_nor_miss() {
    let host = Host::new(2);
    let key = client(1, TCP);
    made(insert(&host, &key, 0, &binding(1, State::HalfOpen, 1)));
    for (index, ..) in host.entries() {
        let entry = host.entry_at(index);
        entry.store::<{ field::TAG }>(entry.load::<{ field::TAG }>() | 1);
    }
    assert!(matches!(find(&&host, &key), Search::Unstable));
}

#[test]
fn a_late_state_does_not_land_in_another_flow() {
    let host = Host::new(64);
    let key = client(1, TCP);
    made(insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)));
    let Search::Hit(entry, recipe, _) = find(&&host, &key) else {
        panic!()
    };
    let other = client(2, TCP);
    entry.store::<{ field::REST }>(other.rest | (State::HalfOpen as u64) << meta::STATE);
    set_state_of_flow(&&host, &key, (entry, &recipe), State::Closed as u8);
    let rest = entry.load::<{ field::REST }>();
    assert_eq!(rest & FlowKey::REST, other.rest);
    assert_eq!(rest >> meta::STATE & 0xff, State::HalfOpen as u64);
}

#[test]
fn a_late_state_does_not_land_in_another_flow_by_way_of_the_partner() {
    let host = Host::new(64);
    let key = client(1, TCP);
    made(insert(&host, &key, 0, &binding(3, State::HalfOpen, 1)));
    let Search::Hit(entry, recipe, _) = find(&&host, &key) else {
        panic!()
    };
    let partner = host.entry_at(u32::try_from(entry.load::<{ field::PARTNER }>()).unwrap());
    let foreign = client(2, TCP).rest | (State::HalfOpen as u64) << meta::STATE;
    partner.store::<{ field::REST }>(foreign);
    set_state_of_flow(&&host, &key, (entry, &recipe), State::Closed as u8);
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

#[test]
fn half_full_almost_every_flow_finds_a_way() {
    let host = Host::new(1 << 10);
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
    assert!(
        full < 20,
        "{full} of 1,024 flows found no way in a table that is half full"
    );
}

#[test]
fn threads_that_rewrite_few_buckets_never_show_a_foreign_recipe() {
    let host = Host::new(8);
    let flows = 40;
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let host = &host;
            scope.spawn(move || {
                let mut random = u64::from(thread) + 1;
                for step in 0..60_000u32 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let port = u16::try_from((random >> 33) % flows).unwrap() + 1;
                    let key = client(port, TCP);
                    match find(&host, &key) {
                        Search::Hit(_, recipe, tag) => {
                            // The VIP's flows carry their port in the backend's row, below its random part.
                            assert_eq!(recipe.backend() & 0xff, port, "another flow's recipe");
                            if step % 3 == 0 {
                                let backend = port | (random >> 50) as u16 & 0x700;
                                insert(
                                    host,
                                    &key,
                                    tag,
                                    &binding(backend, State::Closed, step / 100),
                                );
                            }
                        }
                        Search::Miss => {
                            insert(host, &key, 0, &binding(port, State::Closed, step / 100));
                        }
                        Search::Unstable => {}
                    }
                }
            });
        }
    });
    host.assert_sound();
    assert!(!host.entries().is_empty());
}
