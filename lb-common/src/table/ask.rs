//! Asking for memory ahead of its use, so that the processor waits for all of it side by side. It changes nothing in the
//! table, and what it asks for in vain costs a line of the cache.

use super::{
    Memory,
    entry::{at, partner_of},
    pair, second_home, site,
    victim::{NONE, free_place, is_marked_full},
};
use crate::{
    abi::{FlowKey, PAIR, WAYS},
    flow,
};

/// What a flow may find in the table, going by what the last one of this CPU found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// A free place in its home bucket.
    Free,
    /// Victims.
    Victims,
    /// Neither.
    Nothing,
}

/// Asks ahead for the entries that an insert of this key will look at, by the prints of its pair: the free place, or
/// where there is none all of them, if it may have a victim.
#[inline(always)]
pub fn warm<M: Memory>(memory: &M, key: &FlowKey, clock: &flow::Clock) {
    warm_place(memory, site(memory, key).home, clock);
}

/// [`warm`] for a key of this home bucket.
#[inline(always)]
pub(super) fn warm_place<M: Memory>(memory: &M, home: u32, clock: &flow::Clock) {
    let free = free_place(memory, home, NONE);
    if free != NONE {
        if let Some(entry) = at(memory, free) {
            memory.ask(entry);
        }
    } else if !is_marked_full(memory, pair(home), clock) {
        warm_pair(memory, home);
    }
}

/// Asks ahead for what a flow of this key will most likely need.
#[inline(always)]
pub fn expect<M: Memory>(memory: &M, key: &FlowKey, outlook: Outlook) {
    let home = site(memory, key).home;
    memory.has_spilled(pair(home));
    match outlook {
        Outlook::Free => {
            if let Some(bucket) = memory.bucket(home) {
                warm_bucket(memory, bucket);
            }
        }
        Outlook::Victims => warm_pair(memory, home),
        Outlook::Nothing => {
            memory.has_spilled(pair(second_home(memory, key)));
        }
    }
}

/// Asks for the row and all entries of a pair: the processor waits for them side by side and not in turn.
#[inline(always)]
fn warm_pair<M: Memory>(memory: &M, home: u32) {
    memory.has_spilled(pair(home));
    for index in [home, home ^ 1] {
        if let Some(bucket) = memory.bucket(index) {
            warm_bucket(memory, bucket);
        }
    }
}

#[inline(always)]
pub(super) fn warm_bucket<M: Memory>(memory: &M, bucket: M::Bucket) {
    for way in 0..WAYS {
        memory.ask(memory.entry(bucket, way));
    }
}

/// Asks for an entry's partner and the row of its pair.
#[inline(always)]
pub(super) fn warm_partner<M: Memory>(memory: &M, entry: M::Entry) {
    let index = partner_of(entry);
    if let Some(partner) = at(memory, index) {
        memory.ask(partner);
        memory.has_spilled(index / PAIR);
    }
}
