//! Everything that writes a checksum, for all 65,536 values that it may find or leave, against the sum of RFC 1071 over the whole packet.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{icmp, rewrite};

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

#[test]
fn the_example_of_rfc_1624_gives_0000() {
    let checksum = apply(0xdd2f, fold(replace(0x5555, 0x3285)));
    assert_eq!(checksum, 0x0000);
}

proptest! {
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

/// One's complement sum of big-endian words, added up as RFC 1071 section 1 says.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| {
        assert!(part.len().is_multiple_of(2));
        part.chunks(2)
            .map(|word| u16::from_be_bytes([word[0], word[1]]))
    });
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// The bytes with the right checksum at `at`, summed with what stands in front of them.
fn summed(front: &[u8], mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at..at + 2].fill(0);
    let right = !sum(&[front, &bytes]);
    bytes[at..at + 2].copy_from_slice(&right.to_be_bytes());
    bytes
}

/// A word of a packet as the engine loads it.
fn load(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn store(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
}

/// An address and a port.
type Endpoint = ([u8; 4], u16);

/// Endpoints before and after: near each other, far from each other, and all ones and zeroes.
const REWRITES: [(Endpoint, Endpoint); 6] = [
    (([192, 0, 2, 10], 80), ([10, 2, 0, 11], 8_080)),
    (([10, 2, 0, 11], 8_080), ([192, 0, 2, 10], 80)),
    (([10, 0, 0, 1], 443), ([10, 0, 0, 2], 443)),
    (([1, 0, 0, 0], 1), ([223, 255, 255, 255], 65_535)),
    (([223, 255, 255, 255], 65_535), ([1, 0, 0, 0], 1)),
    (([128, 0, 0, 0], 0x8000), ([127, 255, 255, 255], 0x7fff)),
];

/// What a rewrite adds to the sum of the addresses, and to that of the ports.
fn deltas((old, new): (Endpoint, Endpoint)) -> (u32, u32) {
    let word = u32::from_ne_bytes;
    (
        replace_address(word(old.0), word(new.0)),
        replace(old.1.to_be(), new.1.to_be()),
    )
}

#[test]
fn every_sum_folds_to_its_remainder() {
    for high in [0, 1, 2, 3, 0x7fff, 0x8000, 0xfffd, 0xfffe, 0xffff] {
        for low in 0..=0xffff_u32 {
            let sum = high << 16 | low;
            let remainder = (sum % 0xffff) as u16;
            let expected = if sum != 0 && remainder == 0 {
                0xffff
            } else {
                remainder
            };
            assert_eq!(fold(sum), expected, "{sum:#x}");
        }
    }
}

#[test]
fn every_checksum_takes_every_kind_of_delta() {
    for old in 0..=u16::MAX {
        for delta in [1, 2, 0xff, 0x100, 0x7fff, 0x8000, 0xfffd, 0xfffe, 0xffff] {
            for (old, delta) in [(old, delta), (delta, old)] {
                let (sum, carry) = (!old).overflowing_add(delta);
                assert_eq!(
                    apply(old, delta),
                    !(sum + u16::from(carry)),
                    "{old:#x} {delta:#x}"
                );
                assert_eq!(rewrite::tcp_checksum(old, delta), apply(old, delta));
            }
        }
    }
}

#[test]
fn every_header_checksum_is_right_after_a_hop_and_a_rewrite() {
    for rewritten in REWRITES {
        let (old, new) = (rewritten.0.0, rewritten.1.0);
        let delta = fold(deltas(rewritten).0 + TTL_DECREMENT);
        for identification in 0..=u16::MAX {
            let [high, low] = identification.to_be_bytes();
            let ttl = [1, 2, 64, 128, 255][usize::from(identification % 5)];
            let before = [
                &[0x45, 0, 0, 40, high, low, 0x40, 0, ttl, 6, 0, 0],
                &old[..],
                &[198, 51, 100, 7],
            ];
            let before = summed(&[], before.concat(), 10);
            let word = u32::from_ne_bytes(before[8..12].try_into().unwrap());
            let mut after = before.clone();
            after[8..12].copy_from_slice(&rewrite::ttl_and_checksum(word, delta).to_ne_bytes());
            after[12..16].copy_from_slice(&new);
            let mut expected = before.clone();
            expected[8] -= 1;
            expected[12..16].copy_from_slice(&new);
            assert_eq!(
                after,
                summed(&[], expected, 10),
                "{rewritten:?} {identification}"
            );
            assert_eq!(
                header(&before[..].try_into().map(without_checksum).unwrap()),
                load(&before, 10)
            );

            // The host counts the hop where the packet goes up the stack.
            let delta = fold(u32::from(delta) + TTL_INCREMENT);
            let mut climbing = before.clone();
            store(&mut climbing, 10, apply(load(&before, 10), delta));
            climbing[12..16].copy_from_slice(&new);
            assert_eq!(
                climbing,
                summed(&[], climbing.clone(), 10),
                "{rewritten:?} {identification}"
            );
        }
    }
}

fn without_checksum(mut bytes: [u8; 20]) -> [u8; 20] {
    bytes[10..12].fill(0);
    bytes
}

#[test]
fn every_tcp_and_udp_checksum_is_right_after_a_rewrite() {
    for rewritten in REWRITES {
        let ((old, old_port), (new, new_port)) = rewritten;
        let (addresses, ports) = deltas(rewritten);
        let delta = fold(addresses + ports);
        let front = |address: [u8; 4], protocol, length| {
            [&address[..], &[198, 51, 100, 7, 0, protocol, 0, length]].concat()
        };
        for value in 0..=u16::MAX {
            let [high, low] = value.to_be_bytes();
            let mut segment = [0; 20];
            segment[..2].copy_from_slice(&old_port.to_be_bytes());
            segment[2..4].copy_from_slice(&[0x9c, 0x40]);
            segment[4..6].copy_from_slice(&[high, low]);
            segment[12..14].copy_from_slice(&[0x50, 0x10]);
            let before = summed(&front(old, 6, 20), segment.to_vec(), 16);
            let mut after = before.clone();
            after[..2].copy_from_slice(&new_port.to_be_bytes());
            let expected = summed(&front(new, 6, 20), after.clone(), 16);
            store(
                &mut after,
                16,
                rewrite::tcp_checksum(load(&before, 16), delta),
            );
            assert_eq!(after, expected, "{rewritten:?} {value}");

            let [source_high, source_low] = old_port.to_be_bytes();
            let datagram = [source_high, source_low, 0x9c, 0x40, 0, 10, 0, 0, high, low];
            let front = |address| front(address, 17, 10);
            let before = never_zero(summed(&front(old), datagram.to_vec(), 6));
            let mut after = before.clone();
            after[..2].copy_from_slice(&new_port.to_be_bytes());
            let expected = never_zero(summed(&front(new), after.clone(), 6));
            store(
                &mut after,
                6,
                rewrite::udp_checksum(load(&before, 6), delta),
            );
            assert_eq!(after, expected, "{rewritten:?} {value}");
            assert_eq!(rewrite::udp_checksum(0, value), 0, "none stays none");
        }
    }
}

/// A datagram whose sum is zero says so by its other form (RFC 768).
fn never_zero(mut datagram: Vec<u8>) -> Vec<u8> {
    if datagram[6..8] == [0, 0] {
        datagram[6..8].fill(0xff);
    }
    datagram
}

#[test]
fn every_echo_reply_sums_to_all_ones() {
    for identifier in 0..=u16::MAX {
        let [high, low] = identifier.to_be_bytes();
        for (code, sequence) in [
            (0, [0, 0]),
            (0, [0, 1]),
            (0, [0xff, 0xff]),
            (0xff, [0xf7, 0]),
        ] {
            let request = [
                icmp::ECHO_REQUEST,
                code,
                0,
                0,
                high,
                low,
                sequence[0],
                sequence[1],
            ];
            let request = summed(&[], request.to_vec(), 2);
            let mut reply = request.clone();
            reply[0] = icmp::ECHO_REPLY;
            store(&mut reply, 2, icmp::reply_checksum(load(&request, 2)));
            // A receiver adds all words up, and takes neither 0 nor another sum for all ones.
            assert_eq!(sum(&[&reply]), 0xffff, "{reply:02x?}");
        }
    }
}

#[test]
fn every_time_exceeded_has_both_checksums_right() {
    for value in 0..=u16::MAX {
        let [high, low] = value.to_be_bytes();
        let mut quoted = [0xff; 28];
        quoted[..4].copy_from_slice(&[0x45, 0, high, low]);
        let words = quoted.chunks(2).map(|word| u32::from(load(word, 0)));
        let headers = icmp::time_exceeded([10, 1, 0, 1], [198, 51, high, low], 28, words.sum());
        let ip = summed(&[], headers[..20].to_vec(), 10);
        assert_eq!(headers[..20], ip[..], "{value}");
        let message = [&headers[20..], &quoted].concat();
        assert_eq!(message, summed(&[], message.clone(), 2), "{value}");
        assert_eq!(headers[20..22], [11, 0]);
        assert_eq!(headers[2..4], [0, 56], "the whole length");
    }
}
