//! Freeing what has been silent for so long that its age will soon look young again.

use super::{
    Memory,
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
        if is_ancient::<M>(entry, clock) {
            evict(memory, entry, index, *clock);
            free(memory, entry, index, tag);
        } else {
            release(entry, tag);
        }
    }
}

#[inline(always)]
fn is_ancient<M: Memory>(entry: M::Entry, clock: &flow::Clock) -> bool {
    key_of(entry).addresses != 0 && clock.age(outline_of(entry).last_seen()) > ANCIENT_TICKS
}
