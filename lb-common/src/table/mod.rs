//! The flow table: set-associative, buckets of four entries of a cache line each, with the neighbour bucket as overflow.
//!
//! A flow whose pair of buckets is full of flows that must stay goes to a second pair, by another hash; the first pair
//! then says so for good, next to its lock, and only then is the second one searched. At half load one flow of 200 takes
//! the detour, and one of 2,000 finds both pairs full (with one pair alone, one of 50).
//!
//! Readers take no lock. An entry carries a tag: even is stable, odd is being written, 0 was never used. A reader loads
//! the tag, compares the key, copies the recipe, and loads the tag again; only an unchanged even tag makes a hit. A
//! writer holds the lock of the bucket pair, so that a flow has at most one entry a direction, and takes the tag from
//! even to odd, so that it is alone in the entry. The order holds where loads and stores are not reordered with their
//! own kind (x86); other machines need acquire and release in [`Cells`].
//!
//! Of each pair there is a row ([`crate::abi::PairRow`]) with a print of every key. A search that finds no print, and an
//! insert that finds a free place, look at no entry; and a pair without a victim says until when.
//!
//! The code is generic over the memory, so that the program in the kernel and an interleaving test share it.

mod age;
mod ask;
mod change;
mod entry;
mod expire;
mod insert;
mod overflow;
mod prints;
mod search;
mod victim;

pub use age::is_expired;
pub use ask::{Outlook, expect, warm};
pub use change::{move_client, partner_entry, set_state_of_flow};
pub use expire::{ANCIENT_TICKS, expire};
pub use insert::{Outcome, Work, insert, reply};
pub use overflow::{
    REMEMBERED_SECONDS, Remembered, expect_overflow, forget_replies, overflow, overflowed,
    overflows, stamp, whose_replies,
};
pub use search::{Search, find, find_near};
pub use victim::{Evicted, Scan};

use crate::abi::FlowKey;

/// Longest wait for a lock, in tries; after that the packet is dropped as contended.
pub const LOCK_TRIES: u32 = 32;
/// Searches for an entry that changes under the reader.
pub const SEARCH_TRIES: u32 = 4;
/// Seconds for which a half-open flow can't be evicted.
pub const HALF_OPEN_PROTECTED_SECONDS: u64 = 3;
/// Seconds of silence for which an answered UDP flow can't be evicted; at most 15.
pub const ANSWERED_PROTECTED_SECONDS: u64 = 15;

/// What happened to the table, as counters and labels of the metrics. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// An entry of a flow that was over made room.
    EvictedOver = 0,
    /// An entry of a UDP flow that no backend had answered made room.
    EvictedUnanswered = 1,
    /// An entry of a half-open connection made room.
    EvictedHalfOpen = 2,
    /// A packet's flow found no entry that may be evicted: it goes by its hash, without one, where a backend takes it.
    Overflow = 3,
    /// Another CPU made the same flow first.
    LostInsert = 4,
    /// An entry of an answered UDP flow that had been silent made room.
    EvictedAnswered = 5,
    /// Other CPUs were at work where the flow of a segment from the middle of a connection belongs: it goes by its hash, and the flow gets an
    /// entry with a later one.
    Contended = 6,
}

impl Event {
    /// Every event, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::EvictedOver,
        Self::EvictedUnanswered,
        Self::EvictedHalfOpen,
        Self::Overflow,
        Self::LostInsert,
        Self::EvictedAnswered,
        Self::Contended,
    ];

    /// The event of an eviction.
    #[must_use]
    #[inline(always)]
    pub const fn of(evicted: Evicted) -> Option<Self> {
        match evicted {
            Evicted::Nothing => None,
            Evicted::Over => Some(Self::EvictedOver),
            Evicted::Unanswered => Some(Self::EvictedUnanswered),
            Evicted::HalfOpen => Some(Self::EvictedHalfOpen),
            Evicted::Answered => Some(Self::EvictedAnswered),
        }
    }

    /// Label of the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EvictedOver => "evicted_over",
            Self::EvictedUnanswered => "evicted_unanswered",
            Self::EvictedHalfOpen => "evicted_half_open",
            Self::Overflow => "overflow",
            Self::LostInsert => "lost_insert",
            Self::EvictedAnswered => "evicted_answered",
            Self::Contended => "contended",
        }
    }
}

/// The words of one entry.
pub trait Cells: Copy {
    /// Loads a word.
    fn load<const WORD: usize>(self) -> u64;
    /// Stores a word.
    fn store<const WORD: usize>(self, value: u64);
    /// Stores `new` if the word holds `old`; gives what it held.
    fn compare_exchange<const WORD: usize>(self, old: u64, new: u64) -> u64;
    /// Stores a word so that who loads it sees everything stored before.
    fn publish<const WORD: usize>(self, value: u64);
    /// Stores the upper half of a word, the low 32 bits of `jiffies64` of [`crate::abi::field::SERVICE`].
    fn touch(self, now: u32);
}

/// The table and its locks.
pub trait Memory {
    /// One entry.
    type Entry: Cells;
    /// One bucket.
    type Bucket: Copy;

    /// The bucket; `None` beyond the table.
    fn bucket(&self, index: u32) -> Option<Self::Bucket>;
    /// The entry of a way below four.
    fn entry(&self, bucket: Self::Bucket, way: u32) -> Self::Entry;
    /// Asks for an entry's memory ahead of its use; does nothing where nobody waits for memory.
    fn ask(&self, _entry: Self::Entry) {}
    /// The bucket of a reply without an entry, by a hash of its key, in the table of those: see [`overflow`].
    fn overflow(&self, hash: u32) -> Option<Self::Bucket>;
    /// The prints of such a bucket's places, in a byte each, the first one lowest; 0 of one that was never used.
    fn overflow_prints(&self, hash: u32) -> u32;
    /// Writes the print of a place that the caller has taken.
    fn set_overflow_print(&self, hash: u32, way: u32, print: u8);
    /// When a flow last found no room in a pair, by [`stamp`].
    fn overflow_stamp(&self, pair: u32) -> u16;
    /// Notes it.
    fn set_overflow_stamp(&self, pair: u32, stamp: u16);
    /// Takes the lock of a pair of buckets, or gives up after [`LOCK_TRIES`].
    fn lock(&self, pair: u32) -> bool;
    /// Gives it back.
    fn unlock(&self, pair: u32);
    /// Notes that a flow of the pair, whose lock is held, is in its second pair.
    fn note_spill(&self, pair: u32);
    /// Whether that was ever noted.
    fn has_spilled(&self, pair: u32) -> bool;
    /// The prints of a pair's places, the first one lowest.
    fn prints(&self, pair: u32) -> u64;
    /// Writes the print of the place of an entry that the caller has taken; 0 for a free one.
    fn set_print(&self, index: u32, print: u8);
    /// Until when a pair has no victim, by [`Memory::set_full_until`]; 0 if that is not known.
    fn full_until(&self, pair: u32) -> u32;
    /// Notes it. A hint: whoever comes late may overwrite a newer one.
    fn set_full_until(&self, pair: u32, ticks: u32);
    /// Number of buckets less one; a power of two less one, and below 2^24: a print is of the hash's other bits.
    fn mask(&self) -> u32;
    /// Secret, the same for as long as the table lives.
    fn seed(&self) -> u64;
}

/// Where a key is looked for first.
#[derive(Clone, Copy)]
struct Site {
    /// Its home bucket.
    home: u32,
    /// Its print: see [`crate::abi::PairRow::prints`].
    print: u8,
}

/// Home bucket and print of a key.
#[inline(always)]
fn site(memory: &impl Memory, key: &FlowKey) -> Site {
    let hash = hash(key, memory.seed());
    Site {
        home: hash & memory.mask(),
        print: prints::print(hash),
    }
}

/// Home bucket of a key in its second pair.
#[inline(always)]
pub fn second_home(memory: &impl Memory, key: &FlowKey) -> u32 {
    /// Any constant but zero: a seed of zero needs a second hash too.
    const OTHER: u64 = 0xa5a5_5a5a_c3c3_3c3d;
    hash(key, memory.seed() ^ OTHER) & memory.mask()
}

/// Hash of a 5-tuple, even over 32 bits.
///
/// Two multiplications joined, folded and mixed once more: as even as jhash over the whole 32 bits. One multiplication
/// or xor-mixing clumps badly.
#[must_use]
#[inline(always)]
pub const fn hash(key: &FlowKey, seed: u64) -> u32 {
    let mut mixed = (key.addresses ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ key.rest.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    mixed ^= mixed >> 32;
    (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
}

/// Pair of a bucket: it and its neighbour share a lock.
#[must_use]
#[inline(always)]
pub const fn pair(bucket: u32) -> u32 {
    bucket >> 1
}

#[cfg(test)]
mod tests;
