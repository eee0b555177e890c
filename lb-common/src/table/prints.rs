//! A byte of a key's hash for each place of a pair of buckets, eight in a word that is looked at as a whole.

use crate::abi::{PAIR, WAYS};

/// The lowest bit of each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Print of a key by its first hash, in whichever pair it is: of bits that choose no bucket, and never 0.
#[inline(always)]
pub(super) const fn print(hash: u32) -> u8 {
    (hash >> 24) as u8 | 1
}

/// Places of a pair, as the highest bits of their bytes.
#[derive(Clone, Copy)]
pub(super) struct Places(u64);

impl Places {
    /// Those whose print is this one. One behind the first may be another, by a borrow: the key tells.
    #[inline(always)]
    pub(super) const fn with(prints: u64, print: u8) -> Self {
        Self::free(prints ^ (print as u64 * ONES))
    }

    /// Those that are free, of which the first is certain.
    #[inline(always)]
    pub(super) const fn free(prints: u64) -> Self {
        Self(prints.wrapping_sub(ONES) & !prints & HIGHS)
    }

    #[inline(always)]
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first place; 0 where there is none.
    ///
    /// By a multiplication that moves its number to the top: there is no instruction to count zeros.
    #[inline(always)]
    pub(super) const fn first(self) -> u32 {
        const NUMBERS: u64 = 0x0001_0203_0405_0607;
        let lowest = (self.0 & self.0.wrapping_neg()) >> 7;
        (lowest.wrapping_mul(NUMBERS) >> 56) as u32
    }

    /// All but the first.
    #[inline(always)]
    pub(super) const fn rest(self) -> Self {
        Self(self.0 & self.0.wrapping_sub(1))
    }
}

/// Bits by which the prints of a pair are turned so that those of the bucket `home` come first.
#[inline(always)]
pub(super) const fn turn(home: u32) -> u32 {
    (home & 1) * WAYS * 8
}

/// Bits of a place's byte.
#[inline(always)]
pub(super) const fn byte_of(place: u32) -> u64 {
    0xff << (8 * (place % PAIR))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word of eight of these bytes.
    fn words<const N: usize>(bytes: [u8; N]) -> impl Iterator<Item = [u8; 8]> {
        (0..N.pow(8)).map(move |mut word| {
            core::array::from_fn(|_| {
                let byte = bytes[word % N];
                word /= N;
                byte
            })
        })
    }

    #[test]
    fn the_first_place_with_a_print_is_found() {
        for bytes in words([0, 1, 0x80, 0xff]) {
            for print in [0, 1, 0x80, 0xff] {
                let places = Places::with(u64::from_le_bytes(bytes), print);
                let first = bytes.iter().position(|byte| *byte == print);
                assert_eq!(first.is_none(), places.is_empty(), "{bytes:x?} {print:x}");
                if let Some(first) = first {
                    assert_eq!(places.first() as usize, first, "{bytes:x?} {print:x}");
                }
            }
        }
    }

    #[test]
    fn every_place_with_a_print_is_among_those_found() {
        for bytes in words([0, 1, 2]) {
            let mut places = Places::with(u64::from_le_bytes(bytes), 1);
            let mut found = [false; 8];
            while !places.is_empty() {
                found[places.first() as usize] = true;
                places = places.rest();
            }
            for (byte, found) in bytes.iter().zip(found) {
                assert!(found || *byte != 1, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn no_print_is_that_of_a_free_place() {
        for byte in 0..=0xff_u32 {
            assert_ne!(print(byte << 24), 0);
        }
    }
}
