//! A table in loom's memory, which runs every interleaving of a few threads and every value that a load may give.
//!
//! The order is x86's, and weaker than it: loads acquire, stores release, and what reads and writes at once does both,
//! where x86 also lets all CPUs see stores in one order and a locked instruction wait for all earlier stores. So what
//! holds here holds there. A store is a swap, because loom would let a compare-and-swap read past another thread's store
//! to the same word, which no coherent cache does; that it acquires too hides nothing, since who stores has just taken
//! the tag by compare-and-swap. The word that is also written by half is two atomics, so that it may be read torn, which
//! an aligned word of x86 never is.
//!
//! Words that no thread of a scenario writes are no loom atomics: reading them is no step at which another thread may
//! come in. Which those are is learnt by running the scenario.

use std::{
    boxed::Box,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8 as Byte, AtomicU32 as Hint, AtomicU64 as Plain, Ordering::Relaxed,
        },
    },
    vec::Vec,
};

use loom::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Release, SeqCst},
};

use super::{Host, host::SEED};
use crate::{
    abi::{FlowKey, PAIR, WAYS, field},
    table::{Cells, Memory, Search, find},
};

/// Tries for a lock: fewer than in life, where each more is one more place to switch threads and no other outcome.
const TRIES: u32 = 4;

/// What is broken on purpose, to see that a scenario finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Locks let everyone in.
    NoLock,
    /// A reader's second load of a tag gives what its first did.
    FirstTag,
    /// A new tag is published before what it stands for.
    EarlyTag,
}

/// Places of the words that a scenario was seen to write, learnt from one exploration to the next: within one they stay
/// as they are, because loom wants each run to take the same steps.
#[derive(Clone, Default)]
pub(super) struct Written {
    known: Arc<BTreeSet<usize>>,
    seen: Arc<Mutex<BTreeSet<usize>>>,
}

impl Written {
    /// What was learnt so far is what is known now.
    pub(super) fn learn(&mut self) {
        let seen = self.seen().clone();
        self.known = Arc::new(seen);
    }

    fn add(&self, place: usize) {
        self.seen().insert(place);
    }

    fn has(&self, place: usize) -> bool {
        self.known.contains(&place)
    }

    pub(super) fn len(&self) -> usize {
        self.seen().len()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table of one run.
pub(super) struct Model {
    words: Box<[Word]>,
    locks: Box<[AtomicU64]>,
    /// Noted before the flow is published, and never taken back: no order to explore.
    spills: Box<[AtomicBool]>,
    /// The prints of each pair in a word, learnt as those of the entries are: their places come after these.
    prints: Box<[Word]>,
    /// The same byte by byte, for whoever has taken the entry and writes its own.
    bytes: Box<[Byte]>,
    /// Hints: no order to explore.
    marks: Box<[Hint]>,
    written: Written,
    /// A word was written that nobody was seen to write: the run is not worth anything.
    void: AtomicBool,
    fault: Fault,
}

enum Word {
    Still(Plain),
    Whole(AtomicU64),
    Halves(AtomicU32, AtomicU32),
}

#[expect(clippy::cast_possible_truncation, reason = "split into halves")]
const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Model {
    /// The table as it stands on the host.
    pub(super) fn new(host: &Host, written: &Written, fault: Fault) -> Self {
        let entries = host.snapshot();
        let word = |(place, value): (usize, u64)| {
            if !written.has(place) {
                Word::Still(Plain::new(value))
            } else if place < entries.len() && place % 8 == field::SERVICE {
                let (low, high) = halves(value);
                Word::Halves(AtomicU32::new(low), AtomicU32::new(high))
            } else {
                Word::Whole(AtomicU64::new(value))
            }
        };
        let prints = |pair: usize| {
            let value = (&host).prints(u32::try_from(pair).unwrap());
            word((entries.len() + pair, value))
        };
        Self {
            prints: (0..host.locks.len()).map(prints).collect(),
            bytes: host
                .prints
                .iter()
                .map(|print| Byte::new(print.load(Relaxed)))
                .collect(),
            marks: host
                .marks
                .iter()
                .map(|mark| Hint::new(mark.load(Relaxed)))
                .collect(),
            words: entries.iter().copied().enumerate().map(word).collect(),
            locks: host.locks.iter().map(|_| AtomicU64::new(0)).collect(),
            spills: host.spills().map(AtomicBool::new).collect(),
            written: written.clone(),
            void: AtomicBool::new(false),
            fault,
        }
    }

    /// Whether what was seen is of the scenario.
    pub(super) fn is_valid(&self) -> bool {
        !self.void.load(Relaxed)
    }

    /// The words, once all threads have ended.
    pub(super) fn snapshot(&self) -> Vec<u64> {
        let held = self.locks.iter().filter(|lock| lock.load(Acquire) != 0);
        assert_eq!(held.count(), 0, "a lock is held");
        (0..self.words.len())
            .map(|place| self.last(place))
            .collect()
    }

    /// The prints, once all threads have ended.
    pub(super) fn snapshot_of_prints(&self) -> Vec<u8> {
        let prints = (0..self.prints.len()).map(|pair| self.last(self.words.len() + pair));
        prints.flat_map(u64::to_le_bytes).collect()
    }

    fn word(&self, place: usize) -> &Word {
        match place.checked_sub(self.words.len()) {
            None => &self.words[place],
            Some(pair) => &self.prints[pair],
        }
    }

    /// What a word holds now, which is no choice of values to explore.
    fn last(&self, place: usize) -> u64 {
        match self.word(place) {
            Word::Still(word) => word.load(Relaxed),
            Word::Whole(word) => word.fetch_add(0, AcqRel),
            Word::Halves(low, high) => {
                u64::from(low.fetch_add(0, AcqRel)) | u64::from(high.fetch_add(0, AcqRel)) << 32
            }
        }
    }

    fn load(&self, place: usize) -> u64 {
        match self.word(place) {
            Word::Still(word) => word.load(Relaxed),
            Word::Whole(word) => word.load(Acquire),
            Word::Halves(low, high) => {
                u64::from(low.load(Acquire)) | u64::from(high.load(Acquire)) << 32
            }
        }
    }

    fn still(&self, place: usize, word: &Plain, value: u64) {
        self.void.store(true, Relaxed);
        self.written.add(place);
        word.store(value, Relaxed);
    }

    fn store(&self, place: usize, value: u64) {
        match self.word(place) {
            Word::Still(word) => self.still(place, word, value),
            Word::Whole(word) => {
                word.swap(value, AcqRel);
            }
            Word::Halves(low, high) => {
                let (low_value, high_value) = halves(value);
                low.swap(low_value, AcqRel);
                high.swap(high_value, AcqRel);
            }
        }
    }

    /// Stores by an instruction that also loads, as the kernel's program does.
    fn exchange(&self, place: usize, value: u64) {
        match &self.words[place] {
            Word::Still(word) => self.still(place, word, value),
            Word::Whole(word) => {
                word.swap(value, SeqCst);
            }
            Word::Halves(..) => panic!("no rule publishes by the word {place}"),
        }
    }

    fn compare_exchange(&self, place: usize, old: u64, new: u64) -> u64 {
        match &self.words[place] {
            Word::Still(word) => {
                let held = word.load(Relaxed);
                if held == old {
                    self.still(place, word, new);
                }
                held
            }
            Word::Whole(word) => match word.compare_exchange(old, new, SeqCst, Acquire) {
                Ok(held) | Err(held) => held,
            },
            Word::Halves(..) => panic!("no rule compares and swaps the word {place}"),
        }
    }
}

/// The table as one thread sees it.
pub(super) struct View<'a> {
    pub(super) model: &'a Model,
    /// What a reader that loads each tag once has loaded.
    first_tags: Option<RefCell<BTreeMap<usize, u64>>>,
}

impl<'a> View<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        Self {
            model,
            first_tags: None,
        }
    }

    /// Looks a key up, as a packet does.
    pub(super) fn lookup(&self, key: &FlowKey) -> Search<Place<'a>> {
        let broken = self.model.fault == Fault::FirstTag;
        let reader = View {
            model: self.model,
            first_tags: broken.then(RefCell::default),
        };
        match find(&&reader, key) {
            // What the reader remembers ends with it.
            Search::Hit(entry, recipe, tag) => Search::Hit(
                Place {
                    model: self.model,
                    first_tags: None,
                    first: entry.first,
                },
                recipe,
                tag,
            ),
            Search::Miss => Search::Miss,
            Search::Unstable => Search::Unstable,
        }
    }
}

/// The words of an entry, from the first of these places.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    model: &'a Model,
    first_tags: Option<&'a RefCell<BTreeMap<usize, u64>>>,
    first: usize,
}

impl Cells for Place<'_> {
    fn load<const WORD: usize>(self) -> u64 {
        let place = self.first + WORD;
        let remembered = self.first_tags.filter(|_| WORD == field::TAG);
        if let Some(tag) = remembered.and_then(|tags| tags.borrow().get(&place).copied()) {
            return tag;
        }
        let value = self.model.load(place);
        if let Some(tags) = remembered {
            tags.borrow_mut().insert(place, value);
        }
        value
    }

    fn store<const WORD: usize>(self, value: u64) {
        self.model.store(self.first + WORD, value);
    }

    fn compare_exchange<const WORD: usize>(self, old: u64, new: u64) -> u64 {
        let new = if self.model.fault == Fault::EarlyTag && WORD == field::TAG && new & 1 == 1 {
            // Never odd, and even again from the beginning.
            old.wrapping_add(2)
        } else {
            new
        };
        self.model.compare_exchange(self.first + WORD, old, new)
    }

    fn publish<const WORD: usize>(self, value: u64) {
        self.model.exchange(self.first + WORD, value);
    }

    fn touch(self, now: u32) {
        let place = self.first + field::SERVICE;
        match &self.model.words[place] {
            Word::Still(word) => self.model.still(place, word, u64::from(now) << 32),
            Word::Halves(_, high) => high.store(now, Release),
            Word::Whole(_) => unreachable!("the word is in halves"),
        }
    }
}

impl<'a> Memory for &'a View<'_> {
    type Entry = Place<'a>;
    type Bucket = u32;

    fn bucket(&self, index: u32) -> Option<u32> {
        Some(index & self.mask())
    }

    fn entry(&self, bucket: u32, way: u32) -> Place<'a> {
        let view: &'a View<'_> = self;
        Place {
            model: view.model,
            first_tags: view.first_tags.as_ref(),
            first: (bucket * WAYS + way) as usize * 8,
        }
    }

    fn lock(&self, pair: u32) -> bool {
        let lock = &self.model.locks[pair as usize];
        if self.model.fault == Fault::NoLock {
            // A step of the model all the same: loom can't order a thread's first store with a word's making.
            lock.swap(1, SeqCst);
            return true;
        }
        (0..TRIES).any(|_| lock.compare_exchange(0, 1, SeqCst, Acquire).is_ok())
    }

    fn unlock(&self, pair: u32) {
        self.model.locks[pair as usize].swap(0, SeqCst);
    }

    fn note_spill(&self, pair: u32) {
        self.model.spills[pair as usize].store(true, Relaxed);
    }

    fn has_spilled(&self, pair: u32) -> bool {
        self.model.spills[pair as usize].load(Relaxed)
    }

    fn prints(&self, pair: u32) -> u64 {
        self.model.load(self.model.words.len() + pair as usize)
    }

    fn set_print(&self, index: u32, print: u8) {
        let place = self.model.words.len() + (index / PAIR) as usize;
        let shift = 8 * (index % PAIR);
        // Nobody else writes this byte meanwhile.
        let old = self.model.bytes[index as usize].swap(print, Relaxed);
        let change = u64::from(old ^ print) << shift;
        match self.model.word(place) {
            Word::Still(word) => self.model.still(place, word, word.load(Relaxed) ^ change),
            Word::Whole(word) => {
                word.fetch_xor(change, AcqRel);
            }
            Word::Halves(..) => unreachable!("prints are no entry's words"),
        }
    }

    fn full_until(&self, pair: u32) -> u32 {
        self.model.marks[pair as usize].load(Relaxed)
    }

    fn set_full_until(&self, pair: u32, ticks: u32) {
        self.model.marks[pair as usize].store(ticks, Relaxed);
    }

    /// No scenario gets so far.
    fn overflow(&self, _: u32) -> Option<u32> {
        None
    }

    fn overflow_prints(&self, _: u32) -> u32 {
        0
    }

    fn set_overflow_print(&self, _: u32, _: u32, _: u8) {}

    fn overflow_stamp(&self, _: u32) -> u16 {
        0
    }

    fn set_overflow_stamp(&self, _: u32, _: u16) {}

    fn mask(&self) -> u32 {
        u32::try_from(self.model.locks.len() * 2 - 1).unwrap()
    }

    fn seed(&self) -> u64 {
        SEED
    }
}
