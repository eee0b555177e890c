//! Flows that found no room: their packets go by a hash over the slots, so that only the way of the replies has to be
//! remembered, in a small table of its own that forgets the oldest of a bucket.

use super::{
    Cells, Memory, Outcome, Outlook, SEARCH_TRIES, Search, Work,
    ask::{expect, warm_bucket},
    entry::{outline_of, release, take, take_at},
    find, hash,
    insert::{fill, reply_of, write_recipes},
    pair,
    prints::{Places, print},
    search::{look, rest_of},
    site,
    victim::NONE,
};
use crate::{
    abi::{FlowKey, Recipe, WAYS, field},
    flow::{self, Clock},
};

/// Seconds for which a reply's way is remembered.
pub const REMEMBERED_SECONDS: u32 = 30;

/// Makes the recipes of a flow that gets no entry, and remembers that of its replies.
///
/// [`Outcome::Made`]; [`Outcome::Collision`] where the replies would be taken for those of another flow, with an entry
/// (though it may be over: it is found first) or without; or [`Outcome::Contended`].
#[inline(always)]
pub fn overflow<M: Memory>(memory: &M, work: &mut Work) -> Outcome {
    work.reply = reply_of(work);
    let hash = hash(&work.reply, memory.seed());
    let Some(bucket) = memory.overflow(hash) else {
        return Outcome::Contended;
    };
    let mut tries = SEARCH_TRIES;
    let holder = loop {
        match find(memory, &work.reply) {
            Search::Hit(_, recipe, _) => break Some(recipe),
            Search::Miss => break young(remembered(memory, hash, &work.reply), &work.clock),
            Search::Unstable if tries > 0 => tries -= 1,
            Search::Unstable => return Outcome::Contended,
        }
    };
    if let Some(recipe) = holder
        && flow::partner(&work.reply, &recipe) != work.key
    {
        return Outcome::Collision;
    }
    write_recipes(work);
    // Where another CPU is writing there, the client has to send again.
    let way = place(memory, bucket, &work.reply, &work.clock);
    let entry = memory.entry(bucket, way);
    if let Some(tag) = take(entry) {
        memory.set_overflow_print(hash, way, print(hash));
        fill(entry, tag, &work.reply, &work.back, NONE);
    }
    let now = stamp(work.clock.now);
    for key in [&work.key, &work.reply] {
        let pair = pair(site(memory, key).home);
        if memory.overflow_stamp(pair) != now {
            memory.set_overflow_stamp(pair, now);
        }
    }
    Outcome::Made
}

/// Whose replies are remembered under a 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// No flow's.
    Nobodys,
    /// Those of the flow to be made: it found no room before.
    Its,
    /// Those of another client's key, to whose flow they belong.
    Anothers,
}

/// Ticks in the unit of [`crate::abi::PairRow::overflowed`], of which 65,536 are hours: a look in vain is all that a time long ago
/// may cost.
#[must_use]
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "ages are wrapping differences"
)]
pub const fn stamp(ticks: u32) -> u16 {
    (ticks >> 10) as u16
}

/// Whether a flow without an entry may have this key or reply: one of its pair found no room lately.
#[inline(always)]
pub fn overflows<M: Memory>(memory: &M, key: &FlowKey, clock: &Clock) -> bool {
    let last = memory.overflow_stamp(pair(site(memory, key).home));
    stamp(clock.now).wrapping_sub(last) <= stamp(clock.seconds(REMEMBERED_SECONDS)) + 1
}

/// Whose replies would come from the backend that was chosen for a flow.
#[inline(always)]
pub fn whose_replies<M: Memory>(memory: &M, work: &mut Work) -> Remembered {
    work.reply = reply_of(work);
    let recipe = overflowed(memory, &work.reply, &work.clock);
    match recipe.map(|recipe| flow::partner(&work.reply, &recipe)) {
        None => Remembered::Nobodys,
        Some(key) if key == work.key => Remembered::Its,
        Some(_) => Remembered::Anothers,
    }
}

/// Forgets the replies of a flow that has an entry now: once it ends, they may be another's.
#[inline(always)]
pub fn forget_replies<M: Memory>(memory: &M, work: &Work) {
    let hash = hash(&work.reply, memory.seed());
    if let Some((entry, _, tag)) = remembered(memory, hash, &work.reply)
        && take_at(entry, tag)
    {
        entry.store::<{ field::ADDRESSES }>(0);
        release(entry, tag);
    }
}

/// Asks ahead for what [`overflow`] will look at for this reply.
#[inline(always)]
pub fn expect_overflow<M: Memory>(memory: &M, reply: &FlowKey) {
    expect(memory, reply, Outlook::Nothing);
    if let Some(bucket) = memory.overflow(hash(reply, memory.seed())) {
        warm_bucket(memory, bucket);
    }
}

/// Where a reply is remembered, or may be: in its place, or that of the one not heard of for the longest.
#[inline(always)]
fn place<M: Memory>(memory: &M, bucket: M::Bucket, key: &FlowKey, clock: &Clock) -> u32 {
    let (mut oldest, mut age) = (0, 0);
    for way in 0..WAYS {
        let entry = memory.entry(bucket, way);
        if rest_of(entry, key).is_some() {
            return way;
        }
        let its_age = clock.now.wrapping_sub(outline_of(entry).last_seen());
        if its_age > age {
            (oldest, age) = (way, its_age);
        }
    }
    oldest
}

/// The recipe of a reply of such a flow.
#[inline(always)]
pub fn overflowed<M: Memory>(memory: &M, key: &FlowKey, clock: &Clock) -> Option<Recipe> {
    let hash = hash(key, memory.seed());
    young(remembered(memory, hash, key), clock)
}

/// The recipe of what is remembered, for as long as it is.
#[inline(always)]
fn young<E>(held: Option<(E, Recipe, u64)>, clock: &Clock) -> Option<Recipe> {
    let (_, recipe, _) = held?;
    let age = clock.now.wrapping_sub(recipe.last_seen());
    (age <= clock.seconds(REMEMBERED_SECONDS)).then_some(recipe)
}

/// Where a reply of this hash is remembered, however long ago: the entry, its recipe and its tag.
#[inline(always)]
fn remembered<M: Memory>(memory: &M, hash: u32, key: &FlowKey) -> Option<(M::Entry, Recipe, u64)> {
    let mut places = Places::with(memory.overflow_prints(hash).into(), print(hash));
    for _ in 0..SEARCH_TRIES {
        // The upper half of the word holds no places.
        if places.is_empty() || places.first() >= WAYS {
            break;
        }
        match look(memory.entry(memory.overflow(hash)?, places.first()), key) {
            Search::Hit(entry, recipe, tag) => return Some((entry, recipe, tag)),
            Search::Miss => places = places.rest(),
            Search::Unstable => {}
        }
    }
    None
}
