//! The filter that sends foreign traffic on its way: a bit for each hash of an address that may be ours, and as many
//! for each hash of an address, port and protocol. It may say "ours" of a stranger, which a later stage mends, and never
//! the reverse.

use core::net::SocketAddrV4;

use crate::abi::{FILTER_WORDS, Protocol};

/// Place of an IPv4 address: the word of `FILTER`, in its first half, and the bit in it.
///
/// `address` is the address as four bytes of a packet read in native order. Multiplicative hashing; the constant is
/// 2^32 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4).
#[must_use]
#[inline(always)]
pub const fn place(address: u32) -> (u32, u64) {
    let hash = address.wrapping_mul(0x9e37_79b1) >> 16;
    (hash >> 6, 1 << (hash & 63))
}

/// Place of an endpoint, in the second half: `port` as in a packet, and the IP protocol number above it, from bit 16.
///
/// The port and the protocol are mixed into the address by an exclusive or, which is all that a packet can be asked to
/// pay for: endpoints whose addresses differ just as their ports do share a place.
#[must_use]
#[inline(always)]
pub const fn place_of_endpoint(address: u32, port_and_protocol: u32) -> (u32, u64) {
    let (word, bit) = place(address ^ port_and_protocol);
    (FILTER_WORDS / 2 + word, bit)
}

/// Places of an address, and of its port in each of these protocols: what has to be set for its packets to be let in.
pub fn places(
    endpoint: SocketAddrV4,
    protocols: &[Protocol],
) -> impl Iterator<Item = (u32, u64)> + use<'_> {
    let address = u32::from_ne_bytes(endpoint.ip().octets());
    let port = u32::from(endpoint.port().to_be());
    let endpoints = protocols
        .iter()
        .map(move |protocol| place_of_endpoint(address, port | (*protocol as u32) << 16));
    endpoints.chain([place(address)])
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

    #[test]
    fn an_endpoint_has_the_places_that_its_packets_are_looked_up_by() {
        let endpoint = "192.0.2.10:80".parse().unwrap();
        let key = crate::abi::FlowKey::new("198.51.100.7:40000".parse().unwrap(), endpoint, 6);
        let (address, port) = key.destination_endpoint();
        let tcp = [place_of_endpoint(address, port), place(address)];
        let seen: std::vec::Vec<_> = places(endpoint, &[Protocol::Tcp]).collect();
        assert_eq!(seen, tcp);
        let both: std::vec::Vec<_> = places(endpoint, &[Protocol::Tcp, Protocol::Udp]).collect();
        assert_eq!(both.len(), 3);
        assert!(tcp.iter().all(|place| both.contains(place)));
    }

    #[test]
    fn every_place_is_one_bit_and_every_word_and_bit_is_somebodys() {
        let mut words = [0_u64; FILTER_WORDS as usize];
        for number in 0..200_000_u32 {
            let (word, bit) = place(number);
            assert_eq!(bit.count_ones(), 1);
            words[word as usize] |= bit;
        }
        let half = words.len() / 2;
        assert!(words[..half].iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn every_place_is_in_its_half() {
        for number in 0..100_000_u32 {
            let word = number.wrapping_mul(0x0101_6b55);
            assert!(place(word).0 < FILTER_WORDS / 2);
            let (index, _) = place_of_endpoint(word, number);
            assert!((FILTER_WORDS / 2..FILTER_WORDS).contains(&index));
        }
    }

    #[test]
    fn neighbouring_ports_and_protocols_have_places_of_their_own() {
        let address = u32::from_ne_bytes([192, 0, 2, 10]);
        let ports = (1..=128_u16).map(|port| u32::from(port.to_be()));
        let mut places: std::vec::Vec<_> = ports
            .flat_map(|port| [port | 6 << 16, port | 17 << 16])
            .map(|endpoint| place_of_endpoint(address, endpoint))
            .collect();
        places.sort_unstable();
        places.dedup();
        assert!(places.len() >= 254, "{}", places.len());
    }
}
