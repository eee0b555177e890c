//! Making a flow: both entries under the locks of their pairs, victims by what their flows have shown.

use super::{
    Cells, Memory, Site,
    age::is_expired,
    ask::{Outlook, warm_partner, warm_place},
    entry::{at, key_of, outline_of, partner_of, release, take, take_at},
    pair,
    search::{Search, find, settle},
    second_home, site,
    victim::{Evicted, NONE, PROTECTED, Scan, fate, free_place, is_marked_full, seek},
};
use crate::{
    abi::{FlowKey, Recipe, field, meta},
    checksum,
    flow::{self, State},
};

/// A flow to be made, and what came of it. In the kernel it lies in a map: the stack has no room for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The client's 5-tuple.
    pub key: FlowKey,
    /// The reply's 5-tuple; filled in.
    pub reply: FlowKey,
    /// Recipe of the client's packets; filled in, or another CPU's where the outcome is [`Outcome::Existing`].
    pub there: Recipe,
    /// Recipe of the replies; filled in.
    pub back: Recipe,
    /// Where the client's packets come from: [`crate::abi::ingress_print`].
    pub ingress_print: u64,
    /// The way to the client: [`crate::abi::word::Way`].
    pub way: u64,
    /// Tag of the client's entry that the caller found to be over, 0 where it found none: an entry with another tag is
    /// another CPU's newer flow.
    pub over: u64,
    /// Now, and how long a second is.
    pub clock: flow::Clock,
    /// The backend's address, as in a packet.
    pub backend_address: u32,
    /// The backend's port, as in a packet.
    pub backend_port: u16,
    /// Row of `BACKENDS`.
    pub backend: u16,
    /// Row of `SERVICES`.
    pub service: u32,
    /// Its generation.
    pub backend_generation: u16,
    /// [`flow::State`] after the first packet.
    pub state: u8,
    /// Where the two entries may go.
    pub scans: [Scan; 2],
    /// What had to go for the two entries, as bytes of [`Evicted`]: the client's in the low half.
    pub evicted: u8,
    /// The flow found no room.
    pub crowded: bool,
}

/// What an insert came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The flow is in the table.
    Made,
    /// Another CPU was first.
    Existing,
    /// A living flow of another VIP holds the reply's 5-tuple.
    Collision,
    /// No entry may be evicted.
    Full,
    /// Other CPUs held the locks or entries for too long.
    Contended,
}

impl Work {
    /// What the next flow may find.
    #[must_use]
    #[inline(always)]
    pub const fn outlook(&self) -> Outlook {
        if self.crowded {
            Outlook::Nothing
        } else if self.evicted != 0 {
            Outlook::Victims
        } else {
            Outlook::Free
        }
    }

    /// What had to go for the client's entry and for the reply's.
    #[must_use]
    #[inline(always)]
    pub const fn evicted(&self) -> [Evicted; 2] {
        [
            Evicted::from_bits(self.evicted),
            Evicted::from_bits(self.evicted >> 4),
        ]
    }
}

/// Makes both entries of a flow in mode `nat`.
///
/// 0. A key whose pairs say that they are full ends it, without a lock.
/// 1. The locks of both pairs, in index order.
/// 2. The client's key: a living entry of another CPU ends the insert, and its recipe is the flow's.
/// 3. The reply's key: a living entry of another client's key is a collision.
/// 4. A way for each, their own old one or a victim.
/// 5. Both ways are taken, the partners of what they held are cleared, both are written, and the locks go back.
#[inline(always)]
pub fn insert<M: Memory>(memory: &M, work: &mut Work) -> Outcome {
    let there = site(memory, &work.key);
    // An entry that is over gives its place to the flow's next one.
    if work.over == 0 && is_full(memory, there.home, &work.key, &work.clock) {
        return join_existing(memory, work);
    }
    work.reply = reply_of(work);
    let sites = [there, site(memory, &work.reply)];
    warm_place(memory, sites[1].home, &work.clock);
    let (low, high) = order(pair(sites[0].home), pair(sites[1].home));
    if !lock_both(memory, low, high) {
        // Another CPU is at work there, most likely with the same flow.
        return match join_existing(memory, work) {
            Outcome::Full => Outcome::Contended,
            joined => joined,
        };
    }
    let outcome = insert_locked(memory, work, sites);
    unlock_both(memory, low, high);
    outcome
}

/// Takes the locks of two pairs, which may be one.
#[inline(always)]
fn lock_both(memory: &impl Memory, low: u32, high: u32) -> bool {
    if !memory.lock(low) {
        return false;
    }
    if high != low && !memory.lock(high) {
        memory.unlock(low);
        return false;
    }
    true
}

/// Gives them back.
#[inline(always)]
fn unlock_both(memory: &impl Memory, low: u32, high: u32) {
    if high != low {
        memory.unlock(high);
    }
    memory.unlock(low);
}

/// Whether there is no place for a key, by what its pairs say.
#[inline(always)]
fn is_full<M: Memory>(memory: &M, home: u32, key: &FlowKey, clock: &flow::Clock) -> bool {
    let is_full =
        |home| is_marked_full(memory, pair(home), clock) && free_place(memory, home, NONE) == NONE;
    is_full(home) && is_full(second_home(memory, key))
}

/// What a flow comes to that another CPU may have made.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
fn join_existing<M: Memory>(memory: &M, work: &mut Work) -> Outcome {
    match find(memory, &work.key) {
        // Not made anew yet.
        Search::Hit(_, _, tag) if tag == work.over => Outcome::Contended,
        found => join(&found, work),
    }
}

/// What a flow comes to that another CPU has made: its recipe is the flow's.
#[inline(always)]
fn join<E>(found: &Search<E>, work: &mut Work) -> Outcome {
    match found {
        Search::Hit(_, recipe, _) => {
            work.there = *recipe;
            Outcome::Existing
        }
        Search::Miss => Outcome::Full,
        Search::Unstable => Outcome::Contended,
    }
}

/// The reply's 5-tuple.
#[inline(always)]
pub(super) fn reply_of(work: &Work) -> FlowKey {
    reply(&work.key, work.backend_address, work.backend_port)
}

/// The 5-tuple of the replies to a client's packets, from a backend whose address and port are as in a packet.
#[must_use]
#[inline(always)]
pub const fn reply(key: &FlowKey, address: u32, port: u16) -> FlowKey {
    FlowKey::from_words(
        address,
        key.source_word(),
        (port, key.source_port()),
        key.protocol(),
    )
}

const fn order(one: u32, other: u32) -> (u32, u32) {
    if one < other {
        (one, other)
    } else {
        (other, one)
    }
}

#[inline(always)]
fn insert_locked<M: Memory>(memory: &M, work: &mut Work, sites: [Site; 2]) -> Outcome {
    seek(
        memory,
        (&work.key, &work.clock),
        sites[0],
        NONE,
        &mut work.scans[0],
    );
    if work.scans[0].found != NONE {
        let Some(entry) = at(memory, work.scans[0].found) else {
            return Outcome::Contended;
        };
        if work.scans[0].tag != work.over {
            let rest = entry.load::<{ field::REST }>();
            return join(&settle(entry, work.scans[0].tag, rest), work);
        }
    }
    let forward = work.scans[0].chosen();
    if forward == NONE {
        return Outcome::Full;
    }
    seek(
        memory,
        (&work.reply, &work.clock),
        sites[1],
        forward,
        &mut work.scans[1],
    );
    if work.scans[1].found != NONE {
        let Some(entry) = at(memory, work.scans[1].found) else {
            return Outcome::Contended;
        };
        if holds_a_living_flow(memory, entry, work) {
            // A flow of another pair may just have taken the entry, which says nothing then.
            return if entry.load::<{ field::TAG }>() == work.scans[1].tag & !1 {
                Outcome::Collision
            } else {
                Outcome::Contended
            };
        }
    }
    let reverse = work.scans[1].chosen();
    if reverse == NONE {
        give_up(memory, work);
        return Outcome::Full;
    }
    for (scan, site) in work.scans.iter().zip(&sites) {
        if scan.spills != 0 {
            memory.note_spill(pair(site.home));
        }
    }
    let places = [(forward, sites[0].print), (reverse, sites[1].print)];
    write_both(memory, work, places)
}

/// Frees the flow's own entry that is over, where its next one finds no room: later packets must not find it, but go by
/// their hash as this one does.
#[inline(always)]
fn give_up<M: Memory>(memory: &M, work: &Work) {
    let Scan { found, tag, .. } = work.scans[0];
    if found != NONE
        && let Some(entry) = at(memory, found)
        && take_at(entry, tag)
    {
        evict(memory, entry, found, work.clock);
        free(memory, entry, found, tag);
    }
}

/// Whether the entry of the reply's key belongs to a living flow of another client's key.
#[inline(always)]
fn holds_a_living_flow<M: Memory>(memory: &M, entry: M::Entry, work: &Work) -> bool {
    let holder = outline_of(entry);
    !State::from_byte(holder.state()).ends()
        && flow::partner(&work.reply, &holder) != work.key
        && !is_expired(memory, (&work.reply, entry, &holder), &work.clock)
}

#[inline(always)]
fn write_both<M: Memory>(
    memory: &M,
    work: &mut Work,
    [
        (forward_index, forward_print),
        (reverse_index, reverse_print),
    ]: [(u32, u8); 2],
) -> Outcome {
    let (Some(forward), Some(reverse)) = (at(memory, forward_index), at(memory, reverse_index))
    else {
        return Outcome::Contended;
    };
    warm_partner(memory, forward);
    warm_partner(memory, reverse);
    let [forward_tag, reverse_tag] = [work.scans[0].tag, work.scans[1].tag];
    if !take_at(forward, forward_tag) {
        return Outcome::Contended;
    }
    if !take_at(reverse, reverse_tag) {
        // Its partner may have been cleared meanwhile, and could not clear this one: half a flow must not stay.
        evict(memory, forward, forward_index, work.clock);
        free(memory, forward, forward_index, forward_tag);
        return Outcome::Contended;
    }
    work.evicted = evict(memory, forward, forward_index, work.clock)
        | evict(memory, reverse, reverse_index, work.clock) << 4;
    write_recipes(work);
    work.there.rest |= tenant(forward_tag);
    work.back.rest |= tenant(reverse_tag);
    memory.set_print(reverse_index, reverse_print);
    fill(reverse, reverse_tag, &work.reply, &work.back, forward_index);
    memory.set_print(forward_index, forward_print);
    fill(forward, forward_tag, &work.key, &work.there, reverse_index);
    Outcome::Made
}

/// The recipes of both directions: new address and port, and what they add to the checksums.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
pub(super) fn write_recipes(work: &mut Work) {
    let vip = (work.key.destination_word(), work.key.destination_port());
    let backend = (work.backend_address, work.backend_port);
    let state = u64::from(work.state) << meta::STATE;
    work.there = Recipe {
        rest: work.key.rest | state,
        way: work.ingress_print,
        ..recipe(vip, backend, work)
    };
    work.back = Recipe {
        rest: work.reply.rest | state | meta::REVERSE,
        way: work.way,
        ..recipe(backend, vip, work)
    };
}

#[inline(always)]
fn recipe((old, old_port): (u32, u16), (new, new_port): (u32, u16), work: &Work) -> Recipe {
    let addresses = checksum::replace_address(old, new);
    let ports = checksum::replace(old_port, new_port);
    let delta_ip = u64::from(checksum::fold(addresses + checksum::TTL_DECREMENT));
    let delta_transport = u64::from(checksum::fold(addresses + ports));
    Recipe {
        rest: 0,
        rewrite: u64::from(new) | u64::from(new_port) << 32 | delta_ip << 48,
        binding: delta_transport
            | u64::from(work.backend) << 16
            | u64::from(work.backend_generation) << 32,
        service: u64::from(work.service) | u64::from(work.clock.now) << 32,
        way: 0,
    }
}

/// Says what a taken entry held, as a byte of [`Evicted`], and clears its partner.
#[inline(never)]
pub(super) fn evict<M: Memory>(memory: &M, entry: M::Entry, index: u32, clock: flow::Clock) -> u8 {
    let key = key_of(entry);
    if key.addresses == 0 {
        return Evicted::Nothing as u8;
    }
    let old = outline_of(entry);
    #[expect(clippy::cast_possible_truncation, reason = "at most 4")]
    let class = fate(&old, key.protocol(), &clock).class as u8;
    clear_partner(memory, &flow::partner(&key, &old), partner_of(entry), index);
    // A protected one is evicted only where the caller found it to be over.
    if u64::from(class) == PROTECTED {
        Evicted::Over as u8
    } else {
        class
    }
}

/// Frees the entry at `index` if it still holds `key` and names `owner` as its partner.
#[inline(never)]
fn clear_partner<M: Memory>(memory: &M, key: &FlowKey, index: u32, owner: u32) {
    let Some(entry) = at(memory, index) else {
        return;
    };
    let Some(tag) = take(entry) else { return };
    if key_of(entry) == *key && partner_of(entry) == owner {
        free(memory, entry, index, tag);
    } else {
        release(entry, tag);
    }
}

/// Publishes a taken entry as free.
#[inline(always)]
pub(super) fn free<M: Memory>(memory: &M, entry: M::Entry, index: u32, tag: u64) {
    memory.set_print(index, 0);
    entry.store::<{ field::ADDRESSES }>(0);
    entry.store::<{ field::REST }>(0);
    entry.publish::<{ field::TAG }>(tag.wrapping_add(2));
}

/// Print of the next tenant of an entry with this tag.
#[inline(always)]
const fn tenant(tag: u64) -> u64 {
    tag >> 1 << meta::TENANT
}

/// Writes and publishes a taken entry.
#[inline(always)]
pub(super) fn fill(entry: impl Cells, tag: u64, key: &FlowKey, recipe: &Recipe, partner: u32) {
    let tag = tag.wrapping_add(2);
    entry.store::<{ field::ADDRESSES }>(key.addresses);
    entry.store::<{ field::REST }>(recipe.rest);
    entry.store::<{ field::REWRITE }>(recipe.rewrite);
    entry.store::<{ field::BINDING }>(recipe.binding);
    entry.store::<{ field::SERVICE }>(recipe.service);
    entry.store::<{ field::WAY }>(recipe.way);
    entry.store::<{ field::PARTNER }>(u64::from(partner));
    entry.publish::<{ field::TAG }>(tag);
}
