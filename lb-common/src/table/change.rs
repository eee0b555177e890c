//! What a packet of a known flow may change in its entries, without the lock.

use super::{
    Cells, Memory,
    entry::{at, key_of, partner_of, release, take},
};
use crate::{
    abi::{FlowKey, PAIR, Recipe, field, meta},
    flow::{self, State},
};

/// Writes a new state into both entries of a flow, each by compare-and-swap on the word that also holds the ports: where
/// an entry has another tenant or another state by now, nothing is written.
#[inline(always)]
pub fn set_state_of_flow<M: Memory>(
    memory: &M,
    key: &FlowKey,
    (entry, recipe): (M::Entry, &Recipe),
    state: u8,
) {
    if !set_state(entry, recipe.rest, state) {
        return;
    }
    let Some((partner, rest)) = partner_entry(memory, key, entry, recipe) else {
        return;
    };
    set_state(partner, rest, state);
    if State::from_byte(state).ends() {
        // Their pairs have victims now.
        memory.set_full_until(partner_of(partner) / PAIR, 0);
        memory.set_full_until(partner_of(entry) / PAIR, 0);
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
    let partner = at(memory, partner_of(entry))?;
    let wanted = flow::partner(key, recipe);
    // The word that is written later is read first: the addresses that are read after it belong to it or to a later
    // tenant, and then the compare-and-swap on it fails.
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

/// Writes where a client's packets come from now into its entry and the way back into the other one: that first, so that
/// what failed is tried again with the client's next packet.
#[inline(always)]
pub fn move_client<M: Memory>(
    memory: &M,
    key: &FlowKey,
    (entry, recipe): (M::Entry, &Recipe),
    print: u64,
    way: u64,
) {
    let Some(partner) = at(memory, partner_of(entry)) else {
        return;
    };
    if set_way(partner, &flow::partner(key, recipe), way) {
        set_way(entry, key, print);
    }
}

/// Writes the way of an entry if it holds the key: alone in it, because the word itself can't tell whose it is.
#[inline(always)]
fn set_way(entry: impl Cells, key: &FlowKey, way: u64) -> bool {
    let Some(tag) = take(entry) else {
        return false;
    };
    let same = key_of(entry) == *key;
    if same {
        entry.store::<{ field::WAY }>(way);
    }
    release(entry, tag);
    same
}
