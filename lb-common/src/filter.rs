//! The 64 Ki-bit filter that sends foreign traffic on its way: one bit for each hash of an address that may be ours.
//! It may say "ours" of a stranger, which a later stage mends, and never the reverse.

use crate::abi::FILTER_WORDS;

/// Place of an IPv4 address: the word of `ADDRESS_FILTER` and the bit in it.
///
/// `address` is the address as four bytes of a packet read in native order. Multiplicative hashing; the constant is
/// 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4).
#[must_use]
#[inline(always)]
pub const fn place(address: u32) -> (u32, u64) {
    let hash = address.wrapping_mul(0x9e37_79b1) >> 16;
    ((hash >> 6) & (FILTER_WORDS - 1), 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_addresses_have_places_of_their_own() {
        let mut places: std::vec::Vec<_> = (0..=255)
            .map(|host| place(u32::from_ne_bytes([10, 0, 0, host])))
            .collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 256);
    }
}
