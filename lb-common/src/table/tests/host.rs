//! A table in the memory of the test.

use std::{
    array,
    cell::RefCell,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst},
    vec::Vec,
};

use crate::{
    abi::{FlowEntry, FlowKey, PAIR, Recipe, WAYS, field, pair},
    flow,
    table::{Cells, LOCK_TRIES, Memory, Search, find, hash, prints},
};

/// Secret of every table of these tests.
pub(super) const SEED: u64 = 0x1234_5678_9abc_def0;

/// Bits of a lock's word.
const HELD: u64 = pair::HELD as u64;
const SPILLED: u64 = pair::SPILLED as u64;

/// Words and locks, each access in one order that all threads agree on.
pub(super) struct Host {
    pub(super) words: Vec<AtomicU64>,
    pub(super) locks: Vec<AtomicU64>,
    /// A print for each entry.
    pub(super) prints: Vec<AtomicU8>,
    /// A mark for each pair.
    pub(super) marks: Vec<AtomicU32>,
    /// Replies without an entry.
    overflow: Vec<AtomicU64>,
    /// Prints of their places.
    overflow_prints: Vec<AtomicU8>,
    /// A stamp for each pair.
    overflowed: Vec<AtomicU16>,
}

/// Buckets for replies without an entry; they come after the table's.
const OVERFLOW: u32 = 2;

/// The words of an entry.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a>(&'a [AtomicU64]);

/// An entry in use, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) index: u32,
    pub(super) key: FlowKey,
    pub(super) recipe: Recipe,
    pub(super) partner: u32,
}

impl Host {
    /// An empty table.
    pub(super) fn new(buckets: usize) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            words: zeros(buckets * WAYS as usize * 8),
            locks: zeros(buckets / 2),
            prints: (0..buckets * WAYS as usize)
                .map(|_| AtomicU8::new(0))
                .collect(),
            marks: (0..buckets / 2).map(|_| AtomicU32::new(0)).collect(),
            overflow: zeros((OVERFLOW * WAYS) as usize * 8),
            overflow_prints: (0..OVERFLOW * WAYS).map(|_| AtomicU8::new(0)).collect(),
            overflowed: (0..buckets / 2).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    fn buckets(&self) -> u32 {
        u32::try_from(self.locks.len() * 2).unwrap()
    }

    /// The entry of an index.
    pub(super) fn entry_at(&self, index: u32) -> Entry<'_> {
        Entry(&self.words[index as usize * 8..][..8])
    }

    /// Of each pair, whether a flow was ever put in its second pair.
    pub(super) fn spills(&self) -> impl Iterator<Item = bool> {
        let locks = self.locks.iter();
        locks.map(|lock| lock.load(SeqCst) & SPILLED != 0)
    }

    /// The recipe of a key.
    pub(super) fn find(&self, key: &FlowKey) -> Option<Recipe> {
        match find(&self, key) {
            Search::Hit(_, recipe, _) => Some(recipe),
            Search::Miss | Search::Unstable => None,
        }
    }

    /// Every entry in use.
    pub(super) fn entries(&self) -> Vec<Held> {
        entries(&self.snapshot())
    }

    /// The words, one after the other.
    pub(super) fn snapshot(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(SeqCst)).collect()
    }

    /// Laws that hold whenever no writer is at work.
    pub(super) fn assert_sound(&self) {
        let prints: Vec<_> = self.prints.iter().map(|print| print.load(SeqCst)).collect();
        assert_sound(&self.snapshot(), &prints);
        assert!(
            self.locks.iter().all(|lock| lock.load(SeqCst) & HELD == 0),
            "a lock is held"
        );
    }
}

impl Clone for Host {
    fn clone(&self) -> Self {
        let copy = |words: &[AtomicU64]| {
            let values = words.iter().map(|word| word.load(SeqCst));
            values.map(AtomicU64::new).collect()
        };
        Self {
            words: copy(&self.words),
            locks: copy(&self.locks),
            prints: self
                .prints
                .iter()
                .map(|print| AtomicU8::new(print.load(SeqCst)))
                .collect(),
            marks: self
                .marks
                .iter()
                .map(|mark| AtomicU32::new(mark.load(SeqCst)))
                .collect(),
            overflow: copy(&self.overflow),
            overflow_prints: self
                .overflow_prints
                .iter()
                .map(|print| AtomicU8::new(print.load(SeqCst)))
                .collect(),
            overflowed: self
                .overflowed
                .iter()
                .map(|stamp| AtomicU16::new(stamp.load(SeqCst)))
                .collect(),
        }
    }
}

/// Every entry in use of a table in which no writer is at work.
pub(super) fn entries(words: &[u64]) -> Vec<Held> {
    let (rows, rest) = words.as_chunks::<8>();
    assert!(rest.is_empty());
    let held = |(index, words): (usize, &[u64; 8])| {
        assert_eq!(
            words[field::TAG] & 1,
            0,
            "entry {index} is still being written"
        );
        let (key, recipe) = FlowEntry { words: *words }.read()?;
        Some(Held {
            index: u32::try_from(index).unwrap(),
            key,
            recipe,
            partner: u32::try_from(words[field::PARTNER]).unwrap(),
        })
    };
    rows.iter().enumerate().filter_map(held).collect()
}

/// Laws of a table in which no writer is at work: a key has one entry, and the two entries of a flow name each other
/// and agree, and a place has the print of its key.
pub(super) fn assert_sound(words: &[u64], prints: &[u8]) {
    let entries = entries(words);
    for (index, print) in prints.iter().enumerate() {
        let held = entries.iter().find(|held| held.index as usize == index);
        let wanted = held.map_or(0, |held| prints::print(hash(&held.key, SEED)));
        assert_eq!(*print, wanted, "the print of entry {index}: {held:?}");
    }
    let mut keys: Vec<_> = entries.iter().map(|held| held.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), entries.len(), "a key has two entries");
    for held in &entries {
        let partner = entries.iter().find(|other| other.index == held.partner);
        let partner = partner.unwrap_or_else(|| panic!("half a flow: {held:?}"));
        let reply = flow::partner(&held.key, &held.recipe);
        assert_eq!(
            (partner.key, partner.partner),
            (reply, held.index),
            "half a flow: {held:?}"
        );
        assert_ne!(partner.recipe.is_reverse(), held.recipe.is_reverse());
        assert_eq!(partner.recipe.backend(), held.recipe.backend());
    }
}

impl Cells for Entry<'_> {
    fn load<const WORD: usize>(self) -> u64 {
        self.0[WORD].load(SeqCst)
    }

    fn store<const WORD: usize>(self, value: u64) {
        self.0[WORD].store(value, SeqCst);
    }

    fn compare_exchange<const WORD: usize>(self, old: u64, new: u64) -> u64 {
        match self.0[WORD].compare_exchange(old, new, SeqCst, SeqCst) {
            Ok(held) | Err(held) => held,
        }
    }

    fn publish<const WORD: usize>(self, value: u64) {
        self.0[WORD].store(value, SeqCst);
    }

    fn touch(self, now: u32) {
        let word = &self.0[field::SERVICE];
        word.store(
            word.load(SeqCst) & 0xffff_ffff | u64::from(now) << 32,
            SeqCst,
        );
    }
}

impl<'a> Memory for &'a Host {
    type Entry = Entry<'a>;
    type Bucket = u32;

    fn bucket(&self, index: u32) -> Option<u32> {
        Some(index & self.mask())
    }

    fn entry(&self, bucket: u32, way: u32) -> Entry<'a> {
        let host: &'a Host = self;
        match bucket.checked_sub(host.buckets()) {
            None => host.entry_at(bucket * WAYS + way),
            Some(bucket) => Entry(&host.overflow[(bucket * WAYS + way) as usize * 8..][..8]),
        }
    }

    fn lock(&self, pair: u32) -> bool {
        let lock = &self.locks[pair as usize];
        (0..LOCK_TRIES).any(|_| {
            let free = lock.load(SeqCst) & !HELD;
            lock.compare_exchange(free, free | HELD, SeqCst, SeqCst)
                .is_ok()
        })
    }

    fn unlock(&self, pair: u32) {
        self.locks[pair as usize].fetch_and(!HELD, SeqCst);
    }

    fn note_spill(&self, pair: u32) {
        self.locks[pair as usize].fetch_or(SPILLED, SeqCst);
    }

    fn has_spilled(&self, pair: u32) -> bool {
        self.locks[pair as usize].load(SeqCst) & SPILLED != 0
    }

    fn prints(&self, pair: u32) -> u64 {
        let first = (pair * PAIR) as usize;
        let bytes = array::from_fn(|place| self.prints[first + place].load(SeqCst));
        u64::from_le_bytes(bytes)
    }

    fn set_print(&self, index: u32, print: u8) {
        self.prints[index as usize].store(print, SeqCst);
    }

    fn full_until(&self, pair: u32) -> u32 {
        self.marks[pair as usize].load(SeqCst)
    }

    fn set_full_until(&self, pair: u32, ticks: u32) {
        self.marks[pair as usize].store(ticks, SeqCst);
    }

    fn overflow(&self, hash: u32) -> Option<u32> {
        Some(self.buckets() + hash % OVERFLOW)
    }

    fn overflow_prints(&self, hash: u32) -> u32 {
        let first = (hash % OVERFLOW * WAYS) as usize;
        u32::from_le_bytes(array::from_fn(|way| {
            self.overflow_prints[first + way].load(SeqCst)
        }))
    }

    fn set_overflow_print(&self, hash: u32, way: u32, print: u8) {
        self.overflow_prints[(hash % OVERFLOW * WAYS + way) as usize].store(print, SeqCst);
    }

    fn overflow_stamp(&self, pair: u32) -> u16 {
        self.overflowed[pair as usize].load(SeqCst)
    }

    fn set_overflow_stamp(&self, pair: u32, stamp: u16) {
        self.overflowed[pair as usize].store(stamp, SeqCst);
    }

    fn mask(&self) -> u32 {
        u32::try_from(self.locks.len() * 2 - 1).unwrap()
    }

    fn seed(&self) -> u64 {
        SEED
    }
}

/// A table that notes which locks are taken.
pub(super) struct Noting<'a> {
    pub(super) host: &'a Host,
    pub(super) locks: RefCell<Vec<u32>>,
}

impl<'a> Memory for &Noting<'a> {
    type Entry = Entry<'a>;
    type Bucket = u32;

    fn bucket(&self, index: u32) -> Option<u32> {
        self.host.bucket(index)
    }

    fn entry(&self, bucket: u32, way: u32) -> Entry<'a> {
        self.host.entry(bucket, way)
    }

    fn lock(&self, pair: u32) -> bool {
        self.locks.borrow_mut().push(pair);
        self.host.lock(pair)
    }

    fn unlock(&self, pair: u32) {
        self.host.unlock(pair);
    }

    fn note_spill(&self, pair: u32) {
        self.host.note_spill(pair);
    }

    fn has_spilled(&self, pair: u32) -> bool {
        self.host.has_spilled(pair)
    }

    fn prints(&self, pair: u32) -> u64 {
        self.host.prints(pair)
    }

    fn set_print(&self, index: u32, print: u8) {
        self.host.set_print(index, print);
    }

    fn full_until(&self, pair: u32) -> u32 {
        self.host.full_until(pair)
    }

    fn set_full_until(&self, pair: u32, ticks: u32) {
        self.host.set_full_until(pair, ticks);
    }

    fn overflow(&self, hash: u32) -> Option<u32> {
        self.host.overflow(hash)
    }

    fn overflow_prints(&self, hash: u32) -> u32 {
        self.host.overflow_prints(hash)
    }

    fn set_overflow_print(&self, hash: u32, way: u32, print: u8) {
        self.host.set_overflow_print(hash, way, print);
    }

    fn overflow_stamp(&self, pair: u32) -> u16 {
        self.host.overflow_stamp(pair)
    }

    fn set_overflow_stamp(&self, pair: u32, stamp: u16) {
        self.host.set_overflow_stamp(pair, stamp);
    }

    fn mask(&self) -> u32 {
        self.host.mask()
    }

    fn seed(&self) -> u64 {
        self.host.seed()
    }
}
