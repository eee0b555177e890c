//! Reading the words of an entry whose pair is locked, and taking it.

use super::{Cells, Memory};
use crate::abi::{FlowKey, Recipe, WAYS, field};

/// The entry of an index.
#[inline(always)]
pub(super) fn at<M: Memory>(memory: &M, index: u32) -> Option<M::Entry> {
    let bucket = memory.bucket(index / WAYS)?;
    Some(memory.entry(bucket, index % WAYS))
}

/// Index of the place numbered 0 to `2 * WAYS` in a pair of buckets, `home` first.
#[inline(always)]
pub(super) const fn index_of(home: u32, place: u32) -> u32 {
    (home ^ (place / WAYS)) * WAYS + place % WAYS
}

#[inline(always)]
pub(super) fn key_of(entry: impl Cells) -> FlowKey {
    FlowKey {
        addresses: entry.load::<{ field::ADDRESSES }>(),
        rest: entry.load::<{ field::REST }>() & FlowKey::REST,
    }
}

/// What of a recipe tells how its flow stands and where its partner is; the rest is zero.
#[inline(always)]
pub(super) fn outline_of(entry: impl Cells) -> Recipe {
    Recipe {
        rest: entry.load::<{ field::REST }>(),
        rewrite: entry.load::<{ field::REWRITE }>(),
        service: entry.load::<{ field::SERVICE }>(),
        ..Recipe::default()
    }
}

/// The recipe, whose word [`field::REST`] was loaded before.
#[inline(always)]
pub(super) fn recipe_of(entry: impl Cells, rest: u64) -> Recipe {
    Recipe {
        rest,
        rewrite: entry.load::<{ field::REWRITE }>(),
        binding: entry.load::<{ field::BINDING }>(),
        service: entry.load::<{ field::SERVICE }>(),
        way: entry.load::<{ field::WAY }>(),
    }
}

/// When a packet last used the entry, in ticks.
#[inline(always)]
pub(super) fn last_seen_of(entry: impl Cells) -> u32 {
    (entry.load::<{ field::SERVICE }>() >> 32) as u32
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the word holds 32 bits")]
pub(super) fn partner_of(entry: impl Cells) -> u32 {
    entry.load::<{ field::PARTNER }>() as u32
}

/// Takes an entry from even to odd; gives the even tag, or nothing where another CPU has it.
#[inline(always)]
pub(super) fn take(entry: impl Cells) -> Option<u64> {
    let tag = entry.load::<{ field::TAG }>();
    take_at(entry, tag).then_some(tag)
}

/// Takes an entry that still has this tag.
#[inline(always)]
pub(super) fn take_at(entry: impl Cells, tag: u64) -> bool {
    tag & 1 == 0 && entry.compare_exchange::<{ field::TAG }>(tag, tag | 1) == tag
}

/// Gives a taken entry back.
#[inline(always)]
pub(super) fn release(entry: impl Cells, tag: u64) {
    entry.publish::<{ field::TAG }>(tag.wrapping_add(2));
}
