//! Internet checksums, whole and incremental (RFC 1071, RFC 1624).
//!
//! One's complement sums do not depend on byte order as long as words are loaded and stored in the same one
//! (RFC 1071 section 2, B), so everything here works on words in native order, as the packet holds them.

/// Adds the carries back until 16 bits are left.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sum of the two words of an address.
#[must_use]
#[inline(always)]
pub const fn address(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// What replacing `old` by `new` adds to a one's complement sum: `~m + m'` of RFC 1624 equation 3.
#[must_use]
#[inline(always)]
pub const fn replace(old: u16, new: u16) -> u32 {
    !old as u32 + new as u32
}

/// [`replace`] for a whole IPv4 address.
#[must_use]
#[inline(always)]
pub const fn replace_address(old: u32, new: u32) -> u32 {
    address(!old) + address(new)
}

/// Applies a folded delta to a checksum field: `HC' = ~(~HC + ~m + m')`, RFC 1624 equation 3.
#[must_use]
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded: the sum of two words carries once"
)]
pub const fn apply(checksum: u16, delta: u16) -> u16 {
    let sum = !checksum as u32 + delta as u32;
    !((sum + (sum >> 16)) as u16)
}

/// What lowering the TTL by one adds to the sum of an IPv4 header. The TTL is the first byte of its word.
pub const TTL_DECREMENT: u32 = !u16::from_ne_bytes([1, 0]) as u32;
/// The reverse of [`TTL_DECREMENT`].
pub const TTL_INCREMENT: u32 = u16::from_ne_bytes([1, 0]) as u32;

/// The checksum field of an IPv4 header of 20 bytes whose field is zero.
#[must_use]
pub fn header(bytes: &[u8; 20]) -> u16 {
    let mut sum = 0;
    for pair in bytes.as_chunks::<2>().0 {
        sum += u32::from(u16::from_ne_bytes(*pair));
    }
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, straight from its definition.
    fn whole(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for chunk in bytes.chunks(2) {
            let word = [chunk[0], chunk.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(word));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = [0x0001u32, 0xf203, 0xf4f5, 0xf6f7].iter().sum();
        assert_eq!(fold(sum), 0xddf2);
    }

    /// The carries of any sum, added back until there are none.
    fn folded(mut sum: u32) -> u32 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    }

    #[test]
    fn a_carry_that_carries_again_is_added_too() {
        for sum in [
            0x1_ffff,
            0x2_fffe,
            0xffff_0001,
            0xffff_ffff,
            0xffff,
            0x1_0000,
            0,
        ] {
            assert_eq!(u32::from(fold(sum)), folded(sum), "{sum:#x}");
        }
        assert_eq!(fold(0x1_ffff), 1);
    }

    #[test]
    fn the_example_of_rfc_1624_gives_0000() {
        let checksum = apply(0xdd2f, fold(replace(0x5555, 0x3285)));
        assert_eq!(checksum, 0x0000);
    }

    proptest! {
        #[test]
        fn every_sum_folds_to_its_sixteen_bits(sum in any::<u32>()) {
            prop_assert_eq!(u32::from(fold(sum)), folded(sum));
        }

        #[test]
        fn incremental_equals_whole(mut bytes in prop::array::uniform20(any::<u8>()), address in any::<[u8; 4]>()) {
            bytes[10..12].fill(0);
            bytes[8] = bytes[8].max(1);
            let before = header(&bytes);
            prop_assert_eq!(before.to_ne_bytes(), whole(&bytes).to_be_bytes());

            let old = u32::from_ne_bytes(bytes[16..20].try_into().unwrap());
            let delta = replace_address(old, u32::from_ne_bytes(address)) + TTL_DECREMENT;
            let after = apply(before, fold(delta));
            bytes[16..20].copy_from_slice(&address);
            bytes[8] -= 1;
            bytes[10..12].copy_from_slice(&after.to_ne_bytes());
            prop_assert_eq!(whole(&bytes), 0);
        }
    }
}
