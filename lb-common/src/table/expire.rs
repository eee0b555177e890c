//! Freeing what has been silent for so long that its age will soon look young again.

use super::{
    Memory,
    age::make_as_young_as_flow,
    entry::{at, key_of, outline_of, release, take},
    insert::{evict, free},
};
use crate::{abi::WAYS, flow};

/// Silence after which an entry is freed, whatever its state: ages are differences of 32 bits, and this is a quarter of
/// their range. Seven weeks at 250 ticks a second, twelve days at 1,000.
pub const ANCIENT_TICKS: u32 = 1 << 30;

/// Frees the ancient entries of a bucket, and with each its partner.
///
/// No lock: whoever wants the same entry is told by its tag.
#[inline(always)]
pub fn expire<M: Memory>(memory: &M, bucket: u32, clock: &flow::Clock) {
    for way in 0..WAYS {
        let index = bucket * WAYS + way;
        let Some(entry) = at(memory, index) else {
            return;
        };
        if !is_ancient::<M>(entry, clock) {
            continue;
        }
        let Some(tag) = take(entry) else { continue };
        // A packet may have come, or another tenant.
        if is_ancient::<M>(entry, clock) && !is_used_in_the_other_direction(memory, entry, clock) {
            evict(memory, entry, index, *clock);
            free(memory, entry, index, tag);
        } else {
            release(entry, tag);
        }
    }
}

/// Whether packets of the flow use its other entry: this one then is as old as that.
#[inline(always)]
fn is_used_in_the_other_direction<M: Memory>(
    memory: &M,
    entry: M::Entry,
    clock: &flow::Clock,
) -> bool {
    make_as_young_as_flow(memory, (&key_of(entry), entry, &outline_of(entry)), clock)
        && !is_ancient::<M>(entry, clock)
}

#[inline(always)]
fn is_ancient<M: Memory>(entry: M::Entry, clock: &flow::Clock) -> bool {
    key_of(entry).addresses != 0 && clock.age(outline_of(entry).last_seen()) > ANCIENT_TICKS
}
