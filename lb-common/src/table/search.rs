//! The lookup: what each packet of a known flow costs.

use super::{Cells, Memory, entry::at, home, pair, second_home};
use crate::{
    abi::{FlowKey, Recipe, WAYS, field, meta},
    flow,
};

/// What a search found.
pub enum Search<E> {
    /// The entry, its recipe as it was while the tag stood still, and that tag.
    Hit(E, Recipe, u64),
    /// No entry.
    Miss,
    /// An entry changed under the search, which says nothing: search again.
    Unstable,
}

/// Writes a new state into both entries of a flow, each by compare-and-swap on the word that also holds the ports: where
/// an entry has another tenant or another state by now, nothing is written.
#[inline(always)]
pub fn set_state_of_flow<M: Memory>(
    memory: &M,
    key: &FlowKey,
    (entry, recipe): (M::Entry, &Recipe),
    state: u8,
) {
    if set_state(entry, recipe.rest, state)
        && let Some((partner, rest)) = partner_entry(memory, key, entry, recipe)
    {
        set_state(partner, rest, state);
    }
}

/// The entry of the other direction and its word of key and state, if it holds the key that it should.
#[inline(always)]
pub fn partner_entry<M: Memory>(
    memory: &M,
    key: &FlowKey,
    entry: M::Entry,
    recipe: &Recipe,
) -> Option<(M::Entry, u64)> {
    #[expect(clippy::cast_possible_truncation, reason = "the word holds 32 bits")]
    let partner = at(memory, entry.load::<{ field::PARTNER }>() as u32)?;
    let wanted = flow::partner(key, recipe);
    let rest = partner.load::<{ field::REST }>();
    let same = partner.load::<{ field::ADDRESSES }>() == wanted.addresses
        && rest & FlowKey::REST == wanted.rest;
    same.then_some((partner, rest))
}

#[inline(always)]
fn set_state(entry: impl Cells, rest: u64, state: u8) -> bool {
    let cleared = rest & !(0xff << meta::STATE);
    let new = cleared | (u64::from(state) << meta::STATE);
    entry.compare_exchange::<{ field::REST }>(rest, new) == rest
}

/// Looks for a key wherever it may be.
#[inline(always)]
pub fn find<M: Memory>(memory: &M, key: &FlowKey) -> Search<M::Entry> {
    let home = home(memory, key);
    match find_near(memory, key, home) {
        Search::Miss if memory.has_spilled(pair(home)) => {
            find_near(memory, key, second_home(memory, key))
        }
        found => found,
    }
}

/// Looks for a key in the bucket `home` and its neighbour: a miss is final only where the pair has not spilled.
#[inline(always)]
pub fn find_near<M: Memory>(memory: &M, key: &FlowKey, home: u32) -> Search<M::Entry> {
    let mut tags = 0;
    for index in [home, home ^ 1] {
        let Some(bucket) = memory.bucket(index) else {
            return Search::Miss;
        };
        for way in 0..WAYS {
            let entry = memory.entry(bucket, way);
            let tag = entry.load::<{ field::TAG }>();
            tags |= tag;
            if entry.load::<{ field::ADDRESSES }>() != key.addresses {
                continue;
            }
            let rest = entry.load::<{ field::REST }>();
            if !key.has_rest(rest) {
                continue;
            }
            let recipe = Recipe {
                rest,
                rewrite: entry.load::<{ field::REWRITE }>(),
                binding: entry.load::<{ field::BINDING }>(),
                service: entry.load::<{ field::SERVICE }>(),
                way: entry.load::<{ field::WAY }>(),
            };
            // An odd tag never equals the even number below it, which the entry won't hold again.
            return if entry.load::<{ field::TAG }>() == tag & !1 {
                Search::Hit(entry, recipe, tag)
            } else {
                Search::Unstable
            };
        }
    }
    if tags & 1 == 0 {
        Search::Miss
    } else {
        Search::Unstable
    }
}
