//! The Internet checksum (RFC 1071), computed from the whole packet each time.

use std::net::Ipv4Addr;

/// One's complement sum of 16-bit big-endian words, an odd last byte padded with zero; `start` is a sum to go on from.
///
/// The checksum field to send is the complement of it; over a packet with a right checksum it is `0xffff`.
#[must_use]
pub fn ones_complement_sum(start: u16, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    fold(sum)
}

/// Sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293 section 3.1); `length` is that of header and payload.
#[must_use]
pub fn pseudo_header_sum(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    length: u16,
) -> u16 {
    let [high, low] = length.to_be_bytes();
    let start = ones_complement_sum(0, &source.octets());
    let start = ones_complement_sum(start, &destination.octets());
    ones_complement_sum(start, &[0, protocol, high, low])
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
