//! Every interleaving of threads that come late: what one found in an entry is gone when it writes there.

use std::{cell::RefCell, vec::Vec};

use super::{
    Host,
    flows::*,
    host::{Noting, entries},
    model::View,
    scenario::Scenario,
};
use crate::{
    abi::{FlowKey, meta},
    flow::{self, State},
    table::{Cells, Outcome, Search, Work, partner_entry, set_state_of_flow},
};

/// Ticks at which late threads touch what they found.
const LATER: u32 = 50 * TICKS;

/// A full table in which only the flow of this key may be evicted, and its state is one that packets change.
fn one_flow_may_go(key: &FlowKey) -> Host {
    let table = Host::new(2);
    insert(&&table, key, 0, &binding(1, State::HalfOpen, 1)).made();
    fill(&&table);
    table
}

/// What the slow path does with a packet that changes the state.
fn change_state(view: &View<'_>, key: &FlowKey, state: State) {
    if let Search::Hit(entry, recipe, _) = view.lookup(key) {
        set_state_of_flow(&view, key, (entry, &recipe), state as u8);
    }
}

/// What a packet does to both entries after a silence.
fn touch(view: &View<'_>, key: &FlowKey) {
    if let Search::Hit(entry, recipe, _) = view.lookup(key) {
        entry.touch(LATER);
        if let Some((partner, _)) = partner_entry(&view, key, entry, &recipe) {
            partner.touch(LATER);
        }
    }
}

/// Fails where an entry of a flow is not as it was made, but for when it was used.
fn assert_as_made(words: &[u64], made: &Host, key: &FlowKey, used: &[u32]) {
    let there = made.find(key).unwrap();
    for key in [*key, flow::partner(key, &there)] {
        let whole = made.find(&key).unwrap();
        let entries = entries(words);
        let held = entries
            .iter()
            .find(|held| held.key == key)
            .expect("no entry");
        let recipe = held.recipe;
        assert!(used.contains(&recipe.last_seen()), "{recipe:?}");
        let tenant = 1 << meta::TENANT;
        assert_eq!(
            recipe.rest % tenant,
            whole.rest % tenant,
            "another flow's state"
        );
        let of = |recipe: crate::abi::Recipe| {
            (recipe.rewrite, recipe.binding, recipe.service(), recipe.way)
        };
        assert_eq!(of(recipe), of(whole), "another flow's recipe");
    }
}

/// A packet of either direction of a flow that is evicted meanwhile does something late to what it found.
fn late(new: FlowKey, late: fn(&View<'_>, &FlowKey), used: &'static [u32]) {
    let old = client(1, TCP);
    let table = one_flow_may_go(&old);
    let reply = flow::partner(&old, &table.find(&old).unwrap());
    let bound = binding(90, State::HalfOpen, 100);
    for found in [old, reply] {
        let after = table.clone();
        insert(&&after, &new, 0, &bound).made();
        Scenario::on(table.clone())
            .insert(new, 0, bound)
            .does(move |view| late(view, &found))
            .explore(move |words, results| {
                assert!(matches!(results[0], Result::Made(..)), "{results:?}");
                assert_as_made(words, &after, &new, used);
            });
    }
}

#[test]
fn a_late_state_does_not_land_in_the_next_tenants_entry() {
    late(
        client(90, TCP),
        |view, key| change_state(view, key, State::Closed),
        &[100 * TICKS],
    );
}

#[test]
fn a_late_touch_changes_nothing_but_an_age() {
    late(client(90, TCP), touch, &[100 * TICKS, LATER]);
}

/// Which entry of the new flows takes the place of the old one's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Forward,
    Reverse,
}

/// Inserts into two pairs of buckets evict the two entries of one flow at once.
#[test]
fn no_half_flow_stays_where_two_inserts_evict_its_two_entries() {
    for place in [Place::Forward, Place::Reverse] {
        two_inserts_evict_one_flow(place, 2, |scenario, _| scenario);
    }
}

/// The same, while a packet of the flow closes it.
#[test]
fn no_half_flow_stays_where_two_inserts_evict_its_two_entries_while_it_is_used() {
    two_inserts_evict_one_flow(Place::Forward, 1, |scenario, old| {
        scenario.does(move |view| {
            change_state(view, &old, State::Reset);
        })
    });
}

fn two_inserts_evict_one_flow(
    place: Place,
    preemptions: usize,
    also: fn(Scenario, FlowKey) -> Scenario,
) {
    let bound = [90, 91].map(|backend| binding(backend, State::HalfOpen, 100));
    let (table, old, [first, second]) = one_flow_in_two_pairs(place, &bound);
    let after = table.clone();
    insert(&&after, &first, 0, &bound[0]).made();
    insert(&&after, &second, 0, &bound[1]).made();
    let scenario = Scenario::on(table)
        .preemptions(preemptions)
        .insert(first, 0, bound[0])
        .insert(second, 0, bound[1]);
    also(scenario, old).explore(move |words, results| {
        for (result, key) in results.iter().zip([&first, &second]) {
            match result {
                Result::Made(..) => assert_as_made(words, &after, key, &[100 * TICKS, LATER]),
                // One entry was just being cleared by the other insert.
                other => assert_eq!(*other, Result::Refused(Outcome::Contended)),
            }
        }
    });
}

/// What an insert comes to, which locks it takes, and the table afterwards.
fn try_out(table: &Host, key: &FlowKey, bound: &Work) -> (Result, Vec<u32>, Host) {
    let after = table.clone();
    let noting = Noting {
        host: &after,
        locks: RefCell::default(),
    };
    let result = insert(&&noting, key, 0, bound);
    let locks = noting.locks.into_inner();
    (result, locks, after)
}

/// A full table with a flow whose entries lie in different pairs, and two flows to these backends whose inserts evict one
/// entry of it each, under different locks.
fn one_flow_in_two_pairs(place: Place, bound: &[Work; 2]) -> (Host, FlowKey, [FlowKey; 2]) {
    let keys = || (1..900).map(|port| client(port, TCP));
    let table = Host::new(4);
    let make = |bound: &Work, wanted: &[u32]| {
        let has_these_locks = |key: &FlowKey| try_out(&table, key, bound).1 == wanted;
        let key = keys().find(has_these_locks).expect("a key of these locks");
        insert(&&table, &key, 0, bound).made();
        key
    };
    let old = make(&binding(1, State::HalfOpen, 1), &[0, 1]);
    // Another flow in each pair makes room for the other entry of each insert.
    let others = [[0], [1]].map(|locks| make(&binding(2, State::HalfOpen, 1), &locks));
    fill(&&table);
    for key in [&old, &others[0], &others[1]] {
        set_state(&&table, key, State::Closed);
    }
    for other in others {
        // The oldest entry goes first, and for the client's key.
        let (entry, recipe, _) = hit(&&table, &other);
        let (partner, _) = partner_entry(&&table, &other, entry, &recipe).unwrap();
        entry.touch(if place == Place::Forward {
            2 * TICKS
        } else {
            0
        });
        partner.touch(2 * TICKS);
    }
    let evicts = |bound: &Work, wanted: &[u32]| {
        let the_old_one = |key: &FlowKey| {
            let (result, locks, after) = try_out(&table, key, bound);
            table.find(key).is_none()
                && matches!(result, Result::Made(..))
                && after.find(&old).is_none()
                && locks == wanted
        };
        let key = keys().find(the_old_one);
        key.expect("a key whose insert evicts the flow")
    };
    let inserts = [evicts(&bound[0], &[0]), evicts(&bound[1], &[1])];
    (table, old, inserts)
}

/// The next tenant has the ports of the old one: another client behind its own NAT, say.
#[test]
fn a_late_state_does_not_land_in_the_entry_of_the_next_tenant_with_the_same_ports() {
    late(
        other_client(8, 1, TCP),
        |view, key| change_state(view, key, State::Closed),
        &[100 * TICKS],
    );
}
