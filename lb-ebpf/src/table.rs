//! The flow table's memory in the kernel: the only file that dereferences its map. The rules are in `lb_common::table`.

use core::{arch::asm, mem::offset_of, ptr};

use aya_ebpf::Global;
use lb_common::{
    abi::{DEFAULT_FLOW_ENTRIES, OVERFLOW_BUCKETS, PAIR, PairRow, WAYS, field, pair},
    table::{Cells, LOCK_TRIES, Memory},
};

use crate::maps::{FLOW_PAIRS, FLOWS, OVERFLOW, OVERFLOW_PRINTS};

/// Buckets less one; set when the program is loaded, to fit the map.
#[unsafe(no_mangle)]
static FLOW_MASK: Global<u32> = Global::new(DEFAULT_FLOW_ENTRIES / WAYS - 1);
/// Secret of this instance's hash; set when the program is loaded.
#[unsafe(no_mangle)]
static FLOW_SEED: Global<u64> = Global::new(0);

/// The bit of a [`PairRow`]'s first word, which a lock is taken with as a whole: there is a mark beside the flags.
const HELD: u64 = pair::HELD as u64;
const _: () = assert!(offset_of!(PairRow, flags) == 0 && cfg!(target_endian = "little"));

/// The maps `FLOWS`, `FLOW_PAIRS`, `OVERFLOW` and `OVERFLOW_PRINTS`.
pub(crate) struct Table;

/// The first word of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*mut u64);

/// The first word of a bucket.
#[derive(Clone, Copy)]
pub(crate) struct Bucket(*mut u64);

impl Memory for Table {
    type Entry = Entry;
    type Bucket = Bucket;

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<Bucket> {
        FLOWS.get_ptr_mut(index).map(|bucket| Bucket(bucket.cast()))
    }

    #[inline(always)]
    fn entry(&self, bucket: Bucket, way: u32) -> Entry {
        // SAFETY: a bucket has four entries of eight words.
        Entry(unsafe { bucket.0.add((way & (WAYS - 1)) as usize * 8) })
    }

    #[inline(always)]
    fn ask(&self, entry: Entry) {
        // A load whose result nobody waits for: there is no instruction to prefetch.
        entry.load::<{ field::TAG }>();
    }

    #[inline(always)]
    fn overflow(&self, hash: u32) -> Option<Bucket> {
        let row = OVERFLOW.get_ptr_mut(hash & (OVERFLOW_BUCKETS - 1))?;
        Some(Bucket(row.cast()))
    }

    #[inline(always)]
    fn overflow_prints(&self, hash: u32) -> u32 {
        let row = OVERFLOW_PRINTS.get_ptr(hash & (OVERFLOW_BUCKETS - 1));
        // SAFETY: an aligned word of a map row.
        row.map_or(0, |prints| unsafe { prints.read_volatile() })
    }

    #[inline(always)]
    fn set_overflow_print(&self, hash: u32, way: u32, print: u8) {
        if let Some(row) = OVERFLOW_PRINTS.get_ptr_mut(hash & (OVERFLOW_BUCKETS - 1)) {
            // SAFETY: a byte of a map row.
            unsafe {
                let prints = row.cast::<u8>();
                prints
                    .add((way & (WAYS - 1)) as usize)
                    .write_volatile(print);
            }
        }
    }

    #[inline(always)]
    fn overflow_stamp(&self, pair: u32) -> u16 {
        load_of_pair::<{ offset_of!(PairRow, overflowed) }, _>(pair)
    }

    #[inline(always)]
    fn set_overflow_stamp(&self, pair: u32, stamp: u16) {
        store_in_pair::<{ offset_of!(PairRow, overflowed) }, _>(pair, stamp);
    }

    #[inline(always)]
    fn lock(&self, pair: u32) -> bool {
        let Some(row) = FLOW_PAIRS.get_ptr_mut(pair) else {
            return false;
        };
        let word = row.cast::<u64>();
        for _ in 0..LOCK_TRIES {
            // SAFETY: an aligned word of a map row.
            unsafe {
                let free = word.read_volatile() & !HELD;
                if compare_exchange(word, free, free | HELD) == free {
                    return true;
                }
            }
        }
        false
    }

    #[inline(always)]
    fn unlock(&self, pair: u32) {
        if let Some(row) = FLOW_PAIRS.get_ptr_mut(pair) {
            // SAFETY: the first word of a map row.
            unsafe { clear_bits(row.cast(), pair::HELD.into()) };
        }
    }

    #[inline(always)]
    fn note_spill(&self, pair: u32) {
        // Only who holds the lock writes the flags.
        store_in_pair::<{ offset_of!(PairRow, flags) }, _>(pair, pair::HELD | pair::SPILLED);
    }

    #[inline(always)]
    fn has_spilled(&self, pair: u32) -> bool {
        load_of_pair::<{ offset_of!(PairRow, flags) }, u16>(pair) & pair::SPILLED != 0
    }

    #[inline(always)]
    fn prints(&self, pair: u32) -> u64 {
        load_of_pair::<{ offset_of!(PairRow, prints) }, _>(pair)
    }

    #[inline(always)]
    fn set_print(&self, index: u32, print: u8) {
        if let Some(row) = FLOW_PAIRS.get_ptr_mut(index / PAIR) {
            // SAFETY: a byte of a map row.
            unsafe {
                let prints = (&raw mut (*row).prints).cast::<u8>();
                prints.add((index % PAIR) as usize).write_volatile(print);
            }
        }
    }

    #[inline(always)]
    fn full_until(&self, pair: u32) -> u32 {
        load_of_pair::<{ offset_of!(PairRow, full_until) }, _>(pair)
    }

    #[inline(always)]
    fn set_full_until(&self, pair: u32, ticks: u32) {
        store_in_pair::<{ offset_of!(PairRow, full_until) }, _>(pair, ticks);
    }

    #[inline(always)]
    fn mask(&self) -> u32 {
        FLOW_MASK.load()
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        FLOW_SEED.load()
    }
}

/// Loads the field at byte `AT` of a pair's row; 0 beyond the table.
#[inline(always)]
fn load_of_pair<const AT: usize, Field: Default>(pair: u32) -> Field {
    const { assert!(fits::<Field>(AT)) };
    let row = FLOW_PAIRS.get_ptr(pair);
    // SAFETY: aligned bytes of a map row.
    row.map_or_else(Field::default, |row| unsafe {
        row.byte_add(AT).cast::<Field>().read_volatile()
    })
}

/// Stores the field at byte `AT` of a pair's row.
#[inline(always)]
fn store_in_pair<const AT: usize, Field>(pair: u32, value: Field) {
    const { assert!(fits::<Field>(AT)) };
    if let Some(row) = FLOW_PAIRS.get_ptr_mut(pair) {
        // SAFETY: aligned bytes of a map row.
        unsafe { row.byte_add(AT).cast::<Field>().write_volatile(value) };
    }
}

/// Whether a field at byte `at` is aligned and within a pair's row.
const fn fits<Field>(at: usize) -> bool {
    at.is_multiple_of(size_of::<Field>()) && at + size_of::<Field>() <= size_of::<PairRow>()
}

impl Cells for Entry {
    #[inline(always)]
    fn load<const WORD: usize>(self) -> u64 {
        const { assert!(WORD < 8) };
        // SAFETY: a word of an entry; other CPUs may write it, which a volatile access allows for.
        unsafe { ptr::read_volatile(self.0.add(WORD)) }
    }

    #[inline(always)]
    fn store<const WORD: usize>(self, value: u64) {
        const { assert!(WORD < 8) };
        // SAFETY: as for loading.
        unsafe { ptr::write_volatile(self.0.add(WORD), value) }
    }

    #[inline(always)]
    fn compare_exchange<const WORD: usize>(self, old: u64, new: u64) -> u64 {
        const { assert!(WORD < 8) };
        // SAFETY: an aligned word of an entry.
        unsafe { compare_exchange(self.0.add(WORD), old, new) }
    }

    #[inline(always)]
    fn publish<const WORD: usize>(self, value: u64) {
        const { assert!(WORD < 8) };
        // SAFETY: an aligned word of an entry.
        unsafe { exchange(self.0.add(WORD), value) };
    }

    #[inline(always)]
    fn touch(self, now: u32) {
        // SAFETY: the upper half of a word of an entry.
        unsafe { ptr::write_volatile(self.0.add(field::SERVICE).cast::<u32>().add(1), now) }
    }
}

/// Stores `new` if the word holds `old`; gives what it held. In assembly because `core::sync::atomic` has no
/// read-modify-write for this target.
///
/// # Safety
/// `word` is an aligned word of a map row.
#[inline(always)]
unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let mut held = old;
    // SAFETY: the caller's; the instruction is the only access.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") held,
        );
    }
    held
}

/// Stores a word and orders it after everything before.
///
/// # Safety
/// `word` is an aligned word of a map row.
#[inline(always)]
unsafe fn exchange(word: *mut u64, new: u64) {
    // SAFETY: the caller's; the instruction is the only access.
    unsafe {
        asm!(
            "{value} = xchg_64({word} + 0, {value})",
            word = in(reg) word,
            value = inout(reg) new => _,
        );
    }
}

/// Clears bits of a word that others write too, and orders it after everything before.
///
/// # Safety
/// `word` is an aligned word of a map row.
#[inline(always)]
unsafe fn clear_bits(word: *mut u64, bits: u64) {
    // SAFETY: the caller's; the instruction is the only access.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) &= {kept}",
            word = in(reg) word,
            kept = in(reg) !bits,
        );
    }
}
