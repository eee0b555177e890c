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
mod tests;
