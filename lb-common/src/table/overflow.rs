//! Flows that found no room: their packets go by a hash over the slots, so that only the way of the replies has to be
//! remembered, in a small table of its own that forgets the oldest of a bucket.

use super::{
    Memory, Outcome, Outlook, SEARCH_TRIES, Search, Work,
    entry::{outline_of, take},
    find, hash,
    insert::{expect, fill, reply_of, warm_bucket, write_recipes},
    search::{look, rest_of},
    victim::NONE,
};
use crate::{
    abi::{FlowKey, Recipe, WAYS},
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
    let Some(bucket) = bucket(memory, &work.reply) else {
        return Outcome::Contended;
    };
    let holder = match find(memory, &work.reply) {
        Search::Hit(_, recipe, _) => Some(recipe),
        Search::Miss => remembered(memory, bucket, &work.reply, &work.clock),
        Search::Unstable => return Outcome::Contended,
    };
    if let Some(recipe) = holder
        && flow::partner(&work.reply, &recipe) != work.key
    {
        return Outcome::Collision;
    }
    write_recipes(work);
    // Where another CPU is writing there, the client has to send again.
    let entry = place(memory, bucket, &work.reply, &work.clock);
    if let Some(tag) = take(entry) {
        fill(entry, tag, &work.reply, &work.back, NONE);
    }
    Outcome::Made
}

/// Asks ahead for what [`overflow`] will look at for this reply.
#[inline(always)]
pub fn expect_overflow<M: Memory>(memory: &M, reply: &FlowKey) {
    expect(memory, reply, Outlook::Nothing);
    if let Some(bucket) = bucket(memory, reply) {
        warm_bucket(memory, bucket);
    }
}

/// Where a reply is remembered, or may be: in its place, or that of the one not heard of for the longest.
#[inline(always)]
fn place<M: Memory>(memory: &M, bucket: M::Bucket, key: &FlowKey, clock: &Clock) -> M::Entry {
    let (mut oldest, mut age) = (memory.entry(bucket, 0), 0);
    for way in 0..WAYS {
        let entry = memory.entry(bucket, way);
        if rest_of(entry, key).is_some() {
            return entry;
        }
        let its_age = clock.now.wrapping_sub(outline_of(entry).last_seen());
        if its_age > age {
            (oldest, age) = (entry, its_age);
        }
    }
    oldest
}

/// The recipe of a reply of such a flow.
#[inline(always)]
pub fn overflowed<M: Memory>(memory: &M, key: &FlowKey, clock: &Clock) -> Option<Recipe> {
    remembered(memory, bucket(memory, key)?, key, clock)
}

/// The bucket of a reply without an entry.
#[inline(always)]
fn bucket<M: Memory>(memory: &M, key: &FlowKey) -> Option<M::Bucket> {
    memory.overflow(hash(key, memory.seed()))
}

#[inline(always)]
fn remembered<M: Memory>(
    memory: &M,
    bucket: M::Bucket,
    key: &FlowKey,
    clock: &Clock,
) -> Option<Recipe> {
    for way in 0..WAYS {
        let entry = memory.entry(bucket, way);
        for _ in 0..SEARCH_TRIES {
            match look(entry, key) {
                Search::Hit(_, recipe, _) => {
                    let age = clock.now.wrapping_sub(recipe.last_seen());
                    return (age <= clock.seconds(REMEMBERED_SECONDS)).then_some(recipe);
                }
                Search::Miss => break,
                Search::Unstable => {}
            }
        }
    }
    None
}
