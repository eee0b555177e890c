//! The lookup: what each packet of a known flow costs.

use super::{Cells, Memory, entry::recipe_of, home, pair, second_home};
use crate::abi::{FlowKey, Recipe, WAYS, field};

/// What a search found.
pub enum Search<E> {
    /// The entry, its recipe as it was while the tag stood still, and that tag.
    Hit(E, Recipe, u64),
    /// No entry.
    Miss,
    /// An entry changed under the search, which says nothing: search again.
    Unstable,
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
            let recipe = recipe_of(entry, rest);
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
