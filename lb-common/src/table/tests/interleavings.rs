//! Few threads, every interleaving of them: what a reader sees, and what two writers leave.

use super::{
    Host,
    flows::*,
    model::{Fault, View},
    scenario::Scenario,
};
use crate::{
    abi::{FlowKey, Recipe, meta},
    flow::{self, State},
    table::{Outcome, Search},
};

/// A table that is full of established flows but for [`old`], which is over.
fn one_flow_is_over() -> Host {
    let table = Host::new(2);
    insert(&&table, &old(), 0, &binding(1, State::HalfOpen, 1)).made();
    fill(&&table);
    set_state(&&table, &old(), State::Closed);
    table
}

/// The flow that is over.
fn old() -> FlowKey {
    client(1, TCP)
}

/// A recipe without what packets write into it: the state, and when it was used.
fn unmarked(recipe: &Recipe) -> Recipe {
    Recipe {
        rest: recipe.rest & !(0xff << meta::STATE),
        service: recipe.service().into(),
        ..*recipe
    }
}

/// Both keys of a flow with their recipes.
fn both(table: &Host, key: &FlowKey) -> [(FlowKey, Recipe); 2] {
    let there = table.find(key).unwrap();
    let reply = flow::partner(key, &there);
    [(*key, there), (reply, table.find(&reply).unwrap())]
}

/// Fails where a reader sees anything but one of these recipes or no entry.
fn see(view: &View<'_>, key: &FlowKey, wholes: &[Recipe]) {
    if let Search::Hit(_, seen, _) = view.lookup(key)
        && view.model.is_valid()
    {
        assert!(
            wholes
                .iter()
                .any(|whole| unmarked(whole) == unmarked(&seen)),
            "another flow's recipe: {seen:x?}, and not one of {wholes:x?}"
        );
    }
}

/// How many came to what.
fn count(results: &[Result], is: impl Fn(&Result) -> bool) -> usize {
    results.iter().filter(|result| is(result)).count()
}

fn is_made(result: &Result) -> bool {
    matches!(result, Result::Made(..))
}

fn a_reader_of_a_replaced_entry(fault: Fault) {
    let table = one_flow_is_over();
    let (new, bound) = (client(90, TCP), binding(90, State::HalfOpen, 100));
    let after = table.clone();
    insert(&&after, &new, 0, &bound).made();
    for (key, whole) in both(&table, &old()).into_iter().chain(both(&after, &new)) {
        Scenario::on(table.clone())
            .with(fault)
            .insert(new, 0, bound)
            .does(move |view| see(view, &key, &[whole]))
            .explore(|_, results| {
                assert!(is_made(&results[0]), "{results:?}");
            });
    }
}

#[test]
fn a_reader_sees_the_old_tenant_or_the_new_one_or_none() {
    a_reader_of_a_replaced_entry(Fault::None);
}

#[test]
#[should_panic(expected = "another flow's recipe")]
fn a_reader_that_loads_the_tag_once_is_found_out() {
    a_reader_of_a_replaced_entry(Fault::FirstTag);
}

#[test]
#[should_panic(expected = "another flow's recipe")]
fn a_writer_that_publishes_its_tag_too_early_is_found_out() {
    a_reader_of_a_replaced_entry(Fault::EarlyTag);
}

/// Readers of a flow that is made again, with another backend, in its old entries.
fn a_reader_of_a_flow_made_again(fault: Fault) {
    let table = one_flow_is_over();
    let (_, _, tag) = hit(&&table, &old());
    let bound = binding(2, State::HalfOpen, 100);
    let after = table.clone();
    insert(&&after, &old(), tag, &bound).made();
    let recipes = [table.find(&old()).unwrap(), after.find(&old()).unwrap()];
    Scenario::on(table)
        .with(fault)
        .insert(old(), tag, bound)
        .does(move |view| see(view, &old(), &recipes))
        .explore(|_, results| {
            assert!(is_made(&results[0]), "{results:?}");
        });
}

#[test]
fn a_reader_of_a_flow_made_again_sees_one_of_its_backends_whole() {
    a_reader_of_a_flow_made_again(Fault::None);
}

#[test]
#[should_panic(expected = "another flow's recipe")]
fn a_reader_that_loads_the_tag_once_mixes_two_backends() {
    a_reader_of_a_flow_made_again(Fault::FirstTag);
}

#[test]
fn a_reader_sees_whole_recipes_while_two_writers_follow_each_other() {
    let table = one_flow_is_over();
    let (first, second) = (client(90, TCP), client(91, TCP));
    // The first one's flow is over as soon as it is made, so the second may evict it.
    let bound = binding(90, State::Closed, 2);
    let bound_again = binding(91, State::HalfOpen, 100);
    let after = table.clone();
    insert(&&after, &first, 0, &bound).made();
    let [(_, whole), _] = both(&after, &first);
    Scenario::on(table)
        .preemptions(2)
        .insert(first, 0, bound)
        .insert(second, 0, bound_again)
        .does(move |view| see(view, &first, &[whole]))
        .explore(|_, results| {
            assert!(count(results, is_made) > 0, "{results:?}");
        });
}

fn two_inserts_of_one_flow(fault: Fault) {
    let key = client(90, TCP);
    Scenario::on(Host::new(2))
        .with(fault)
        .insert(key, 0, binding(3, State::HalfOpen, 1))
        .insert(key, 0, binding(4, State::HalfOpen, 1))
        .explore(|_, results| {
            one_was_made(results);
        });
}

/// One made the flow, and the others use its backend or were kept waiting for too long.
fn one_was_made(results: &[Result]) {
    let made: Vec<_> = results.iter().filter(|result| is_made(result)).collect();
    let [Result::Made(recipe, _)] = made[..] else {
        panic!("not made once: {results:?}")
    };
    for other in results.iter().filter(|result| !is_made(result)) {
        let other_is_right = match other {
            Result::Existing(other) => other == recipe,
            other => *other == Result::Refused(Outcome::Contended),
        };
        assert!(other_is_right, "{results:?}");
    }
}

#[test]
fn of_two_inserts_of_one_flow_the_second_uses_the_firsts_backend() {
    two_inserts_of_one_flow(Fault::None);
}

#[test]
#[should_panic(expected = "not made once")]
fn two_inserts_without_a_lock_are_found_out() {
    two_inserts_of_one_flow(Fault::NoLock);
}

#[test]
fn of_three_inserts_of_one_flow_one_makes_it() {
    let key = client(90, TCP);
    let mut scenario = Scenario::on(Host::new(2)).preemptions(2);
    for backend in 3..6 {
        scenario = scenario.insert(key, 0, binding(backend, State::HalfOpen, 1));
    }
    scenario.explore(|_, results| {
        one_was_made(results);
    });
}

#[test]
fn of_two_inserts_that_found_the_same_entry_to_be_over_one_makes_the_flow() {
    let table = one_flow_is_over();
    let (_, _, tag) = hit(&&table, &old());
    Scenario::on(table)
        .insert(old(), tag, binding(3, State::HalfOpen, 100))
        .insert(old(), tag, binding(4, State::HalfOpen, 100))
        .explore(|_, results| {
            one_was_made(results);
        });
}

#[test]
fn of_two_inserts_for_the_last_place_one_gets_it_and_no_established_flow_goes() {
    let table = one_flow_is_over();
    let established = table.entries().len() - 2;
    Scenario::on(table)
        .insert(client(90, TCP), 0, binding(90, State::HalfOpen, 100))
        .insert(client(91, TCP), 0, binding(91, State::HalfOpen, 100))
        .explore(move |words, results| {
            assert_eq!(count(results, is_made), 1, "{results:?}");
            let refused = |result: &Result| {
                let refused = [Outcome::Full, Outcome::Contended].map(Result::Refused);
                refused.contains(result)
            };
            assert_eq!(count(results, refused), 1, "{results:?}");
            let entries = super::host::entries(words);
            let left = entries
                .iter()
                .filter(|held| held.recipe.state() == State::Established as u8);
            assert_eq!(left.count(), established);
        });
}

#[test]
fn of_two_vips_flows_with_one_reply_one_is_made() {
    let vip = |last| {
        let address = core::net::Ipv4Addr::new(192, 0, 2, last);
        let vip = core::net::SocketAddrV4::new(address, 80);
        FlowKey::new(client(90, TCP).source(), vip, TCP)
    };
    Scenario::on(Host::new(2))
        .insert(vip(10), 0, binding(3, State::HalfOpen, 1))
        .insert(vip(11), 0, binding(3, State::HalfOpen, 1))
        .explore(|_, results| {
            assert_eq!(count(results, is_made), 1, "{results:?}");
            let refused = |result: &Result| {
                let refused = [Outcome::Collision, Outcome::Contended].map(Result::Refused);
                refused.contains(result)
            };
            assert_eq!(count(results, refused), 1, "{results:?}");
        });
}
