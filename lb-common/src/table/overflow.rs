//! Flows that found no room: their packets go by a hash over the slots, so that only the way of the replies has to be
//! remembered, in a small table of its own that forgets the older one of two that want the same place.

use super::{
    Memory, Outcome, Search, Work,
    entry::take,
    find, hash,
    insert::{fill, holds_a_living_flow, reply_of, write_recipes},
    search::look,
    victim::NONE,
};
use crate::{
    abi::{FlowKey, Recipe},
    flow::Clock,
};

/// Seconds for which a reply's way is remembered.
const REMEMBERED_SECONDS: u32 = 30;

/// Makes the recipes of a flow that gets no entry, and remembers that of its replies.
///
/// [`Outcome::Made`], or [`Outcome::Collision`] where replies are those of a living flow.
#[inline(always)]
pub fn overflow<M: Memory>(memory: &M, work: &mut Work) -> Outcome {
    work.reply = reply_of(work);
    if let Search::Hit(entry, ..) = find(memory, &work.reply)
        && holds_a_living_flow(entry, work)
    {
        return Outcome::Collision;
    }
    write_recipes(work);
    // Where another CPU is writing there, the client has to send again.
    if let Some(entry) = memory.overflow(hash(&work.reply, memory.seed()))
        && let Some(tag) = take(entry)
    {
        fill(entry, tag, &work.reply, &work.back, NONE);
    }
    Outcome::Made
}

/// The recipe of a reply of such a flow.
#[inline(always)]
pub fn overflowed<M: Memory>(memory: &M, key: &FlowKey, clock: &Clock) -> Option<Recipe> {
    let entry = memory.overflow(hash(key, memory.seed()))?;
    let Search::Hit(_, recipe, _) = look(entry, key) else {
        return None;
    };
    let remembered = REMEMBERED_SECONDS * clock.ticks_per_second;
    (clock.age(recipe.last_seen()) <= remembered).then_some(recipe)
}
