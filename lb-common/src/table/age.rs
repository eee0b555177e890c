//! The age of a flow, which is that of the younger of its two entries.
//!
//! A packet writes the time into the entry that it used, and never into the other one: that would be a second line of memory for each
//! packet that comes after a silence. So an entry may look old while its flow is used in the other direction. Whoever is about to
//! take an old entry for the end of its flow asks here.

use super::{Cells, Memory, change::partner_entry, entry::last_seen_of};
use crate::{
    abi::{FlowKey, Recipe},
    flow::{self, Clock},
};

/// When a packet of either direction last used the flow of an entry, in ticks.
#[inline(always)]
pub(super) fn last_seen_of_flow<M: Memory>(
    memory: &M,
    (key, entry, recipe): (&FlowKey, M::Entry, &Recipe),
    clock: &Clock,
) -> u32 {
    let own = recipe.last_seen();
    let Some((partner, _)) = partner_entry(memory, key, entry, recipe) else {
        return own;
    };
    let other = last_seen_of(partner);
    if clock.age(other) < clock.age(own) {
        other
    } else {
        own
    }
}

/// Whether the flow of an entry has been idle in both directions for longer than its state allows.
#[inline(always)]
pub fn is_expired<M: Memory>(
    memory: &M,
    (key, entry, recipe): (&FlowKey, M::Entry, &Recipe),
    clock: &Clock,
) -> bool {
    let protocol = key.protocol();
    flow::is_expired(recipe, protocol, clock) && {
        let last_seen = last_seen_of_flow(memory, (key, entry, recipe), clock);
        flow::is_expired(&recipe.used_at(last_seen), protocol, clock)
    }
}

/// Writes the flow's age into an entry that looks older than its flow; gives whether it did.
#[inline(always)]
pub(super) fn make_as_young_as_flow<M: Memory>(
    memory: &M,
    (key, entry, recipe): (&FlowKey, M::Entry, &Recipe),
    clock: &Clock,
) -> bool {
    let last_seen = last_seen_of_flow(memory, (key, entry, recipe), clock);
    let younger = last_seen != recipe.last_seen();
    if younger {
        entry.touch(last_seen);
    }
    younger
}
