//! The lookup: what each packet of a known flow costs.

use super::{
    Cells, Memory,
    entry::{at, recipe_of},
    pair,
    prints::{Places, turn},
    second_home, site,
};
use crate::abi::{FlowKey, PAIR, Recipe, WAYS, field};

/// What a search found.
pub enum Search<E> {
    /// The entry, its recipe as it was while the tag stood still, and that tag.
    Hit(E, Recipe, u64),
    /// No entry.
    Miss,
    /// An entry changed under the search, which says nothing: search again.
    Unstable,
}

/// Looks for a key wherever it may be, by the prints: the search for a packet that most likely has no entry.
#[inline(always)]
pub fn find<M: Memory>(memory: &M, key: &FlowKey) -> Search<M::Entry> {
    let site = site(memory, key);
    match find_in_pair(memory, key, site.print, site.home) {
        Search::Miss if memory.has_spilled(pair(site.home)) => {
            find_in_pair(memory, key, site.print, second_home(memory, key))
        }
        found => found,
    }
}

/// Looks for a key in its home bucket way by way, and by its print in the neighbour: the search for a packet of a known
/// flow, which most often is in one of the first ways. Where it finds nothing, [`find`] may.
///
/// A key that `may_be_new` has its pair's prints looked at first, so that one without an entry does not wait for the bucket's.
#[inline(always)]
pub fn find_near<M: Memory>(
    memory: &M,
    key: &FlowKey,
    may_be_new: bool,
) -> Option<(M::Entry, Recipe)> {
    let site = site(memory, key);
    if may_be_new && Places::with(memory.prints(pair(site.home)), site.print).is_empty() {
        return None;
    }
    let bucket = memory.bucket(site.home)?;
    for way in 0..WAYS {
        if let Search::Hit(entry, recipe, _) = look(memory.entry(bucket, way), key) {
            return Some((entry, recipe));
        }
    }
    let neighbour = site.home ^ 1;
    let prints = memory.prints(pair(neighbour)).rotate_right(turn(neighbour));
    let places = Places::with(prints, site.print);
    if places.is_empty() || places.first() >= WAYS {
        return None;
    }
    let bucket = memory.bucket(neighbour)?;
    match look(memory.entry(bucket, places.first()), key) {
        Search::Hit(entry, recipe, _) => Some((entry, recipe)),
        Search::Miss | Search::Unstable => None,
    }
}

/// Looks for a key at the places of a pair that have its print.
#[inline(always)]
fn find_in_pair<M: Memory>(memory: &M, key: &FlowKey, print: u8, home: u32) -> Search<M::Entry> {
    let mut tags = 0;
    match hold(memory, key, print, home, &mut tags) {
        Some(held) => settle(held.entry, held.tag, held.rest),
        None if tags & 1 == 0 => Search::Miss,
        None => Search::Unstable,
    }
}

/// An entry that was seen to hold a key.
pub(super) struct Held<E> {
    pub(super) index: u32,
    pub(super) entry: E,
    /// Its tag, loaded before the key.
    pub(super) tag: u64,
    /// Its word [`field::REST`].
    pub(super) rest: u64,
}

/// The entry of a pair that holds a key, by the print. Adds up in `tags` the bits of the tags
/// that it has loaded.
#[inline(always)]
pub(super) fn hold<M: Memory>(
    memory: &M,
    key: &FlowKey,
    print: u8,
    home: u32,
    tags: &mut u64,
) -> Option<Held<M::Entry>> {
    let mut places = Places::with(memory.prints(pair(home)), print);
    for _ in 0..PAIR {
        if places.is_empty() {
            break;
        }
        let index = pair(home) * PAIR + places.first();
        places = places.rest();
        let entry = at(memory, index)?;
        let tag = entry.load::<{ field::TAG }>();
        *tags |= tag;
        if let Some(rest) = rest_of(entry, key) {
            return Some(Held {
                index,
                entry,
                tag,
                rest,
            });
        }
    }
    None
}

/// Copies the recipe of an entry that was seen to hold the key, if it still does.
#[inline(always)]
pub(super) fn settle<E: Cells>(entry: E, tag: u64, rest: u64) -> Search<E> {
    let recipe = recipe_of(entry, rest);
    // An odd tag never equals the even number below it, which the entry won't hold again.
    if entry.load::<{ field::TAG }>() == tag & !1 {
        Search::Hit(entry, recipe, tag)
    } else {
        Search::Unstable
    }
}

/// Looks at one entry.
#[inline(always)]
pub(super) fn look<E: Cells>(entry: E, key: &FlowKey) -> Search<E> {
    let tag = entry.load::<{ field::TAG }>();
    let miss = if tag & 1 == 0 {
        Search::Miss
    } else {
        Search::Unstable
    };
    match rest_of(entry, key) {
        Some(rest) => settle(entry, tag, rest),
        None => miss,
    }
}

/// The word [`field::REST`] of an entry that holds the key.
#[inline(always)]
pub(super) fn rest_of(entry: impl Cells, key: &FlowKey) -> Option<u64> {
    if entry.load::<{ field::ADDRESSES }>() != key.addresses {
        return None;
    }
    let rest = entry.load::<{ field::REST }>();
    key.has_rest(rest).then_some(rest)
}
