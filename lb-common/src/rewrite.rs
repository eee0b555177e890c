//! Transport checksums after a rewrite, from the delta of a recipe.

use crate::checksum;

/// The word of TTL, protocol and header checksum, read in native order, after a hop: the TTL is above 0 and goes down by
/// one, `delta` says what that and the rewrite add to the header's sum.
#[must_use]
#[inline(always)]
pub const fn ttl_and_checksum(word: u32, delta: u16) -> u32 {
    const {
        assert!(
            cfg!(target_endian = "little"),
            "the TTL is the lowest byte of the word"
        );
    }
    let sum = (word >> 16 ^ 0xffff) + delta as u32;
    ((word & 0xffff) - 1) | !(sum + (sum >> 16)) << 16
}

/// A TCP checksum after the rewrite.
#[must_use]
#[inline(always)]
pub const fn tcp_checksum(old: u16, delta: u16) -> u16 {
    checksum::apply(old, delta)
}

/// A UDP checksum after the rewrite: 0 means "none" and stays, and a sum of 0 is sent as all ones (RFC 768).
#[must_use]
#[inline(always)]
pub const fn udp_checksum(old: u16, delta: u16) -> u16 {
    if old == 0 {
        return 0;
    }
    match checksum::apply(old, delta) {
        0 => u16::MAX,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_without_a_checksum_stays_without() {
        assert_eq!(udp_checksum(0, 0x1234), 0);
        assert_ne!(udp_checksum(0x1234, 0x1234), 0);
        for old in 1..=u16::MAX {
            assert_ne!(udp_checksum(old, 0x00ff), 0);
        }
    }
}
