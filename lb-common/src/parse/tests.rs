//! Every header field against what the RFCs say of it, read here byte by byte.

use std::{vec, vec::Vec};

use super::*;

/// A frame with an IPv4 packet of this protocol, whose header has so many words of options.
fn frame(protocol: u8, options: u8, inside: &[u8]) -> Vec<u8> {
    let total = 20 + 4 * u16::from(options) + u16::try_from(inside.len()).unwrap();
    let [high, low] = total.to_be_bytes();
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    bytes.extend([
        0x45 + options,
        0x12,
        high,
        low,
        0x34,
        0x56,
        0x40,
        0,
        63,
        protocol,
        0x78,
        0x9a,
    ]);
    bytes.extend([198, 51, 100, 7, 192, 0, 2, 10]);
    bytes.extend(vec![1; 4 * usize::from(options)]);
    bytes.extend(inside);
    bytes
}

fn segment(words: u8, flags: u8) -> Vec<u8> {
    let mut bytes = vec![
        0x9c,
        0x40,
        0,
        80,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        words << 4,
        flags,
        9,
        10,
        11,
        12,
        13,
        14,
    ];
    bytes.extend(vec![1; (4 * usize::from(words)).saturating_sub(20)]);
    bytes.extend(b"data");
    bytes
}

fn datagram(length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [
        &[0x9c, 0x40, 0, 53, high, low, 0xab, 0xcd][..],
        b"a question, long",
    ]
    .concat()
}

fn two(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

/// What [`network`] should tell.
fn expected_network(bytes: &[u8]) -> Network {
    if bytes.len() < 34 || two(bytes, 12) != 0x800 || bytes[14] / 16 != 4 {
        return Network::Other;
    }
    let (header_length, total_length) = (usize::from(bytes[14] % 16) * 4, two(bytes, 16));
    let fragment = match (two(bytes, 20) % 0x2000, two(bytes, 20) / 0x2000 % 2) {
        (0, 0) => Fragment::No,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let address = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    Network::Ipv4(Ipv4 {
        source: address(26),
        destination: address(30),
        protocol: bytes[23],
        ttl: bytes[22],
        header_length,
        total_length,
        fragment,
        sound: header_length >= 20
            && total_length >= header_length
            && total_length <= bytes.len() - 14,
    })
}

/// What [`transport`] should tell.
fn expected_transport(bytes: &[u8], ip: &Ipv4) -> Result<Transport, DropReason> {
    if !ip.sound {
        return Err(DropReason::MalformedIp);
    }
    if ip.fragment == Fragment::Later {
        return Ok(Transport::Other);
    }
    let inside = &bytes[14 + ip.header_length..14 + ip.total_length];
    let ports = |flags| {
        let port = |at: usize| u16::from_ne_bytes([inside[at], inside[at + 1]]);
        let (source, destination) = (port(0), port(2));
        Ok(Transport::Ports(Ports {
            source,
            destination,
            flags: TcpFlags(flags),
        }))
    };
    match ip.protocol {
        6 if inside.len() < 20 => Err(DropReason::MalformedTcp),
        6 => {
            let (words, flags) = (usize::from(inside[12] / 16), inside[13]);
            let sends = |flag: u8| flags & flag == flag;
            let (fin, syn, rst, ack) = (sends(1), sends(2), sends(4), sends(16));
            let wrong = (syn && (fin || rst)) || !(fin || syn || rst || ack);
            if words < 5 || words * 4 > inside.len() || wrong {
                return Err(DropReason::MalformedTcp);
            }
            ports(flags)
        }
        17 if inside.len() < 8 || two(inside, 4) < 8 => Err(DropReason::MalformedUdp),
        17 if ip.fragment == Fragment::No && two(inside, 4) > inside.len() => {
            Err(DropReason::MalformedUdp)
        }
        17 => ports(0),
        1 if inside.len() < 8 => Err(DropReason::MalformedIcmp),
        1 => Ok(Transport::Icmp(inside[0], inside[1])),
        _ => Ok(Transport::Other),
    }
}

/// The key of a packet whose headers were read.
fn key(ip: &Ipv4, ports: Ports) -> FlowKey {
    let both = (ports.source, ports.destination);
    FlowKey::from_words(ip.source, ip.destination, both, ip.protocol)
}

/// Holds both parsers, and what the fast path asks, against what should be.
fn hold(bytes: &[u8]) {
    let network = network(&bytes);
    assert_eq!(network, expected_network(bytes), "{bytes:02x?}");
    let read = match network {
        Network::Ipv4(ip) => {
            let transport = transport(&bytes, &ip);
            assert_eq!(transport, expected_transport(bytes, &ip), "{bytes:02x?}");
            transport.ok().map(|transport| (ip, transport))
        }
        Network::Other => None,
    };
    let Some(window) = bytes.first_chunk::<PLAIN>() else {
        return;
    };
    let ipv4 = two(bytes, 12) == 0x800;
    assert_eq!(is_ipv4(window), ipv4);
    if !ipv4 {
        return;
    }
    // What goes on by the fast path is what the pipeline would read in the same way and let go on, and nothing else.
    let plain = read.and_then(|(ip, transport)| match transport {
        Transport::Ports(ports) => Some((ip, ports)),
        _ => None,
    });
    let plain = plain.filter(|(ip, ports)| {
        let goes_on = ip.protocol == UDP || ports.flags.0 & 0b1_0111 == 0b1_0000;
        ip.header_length == 20 && ip.fragment == Fragment::No && ip.ttl > 1 && goes_on
    });
    let seen = plain_protocol(window)
        .filter(|protocol| goes_on(window, *protocol, bytes.len()))
        .map(|protocol| plain_key(window, protocol));
    let wanted = plain.map(|(ip, ports)| key(&ip, ports));
    assert_eq!(seen, wanted, "{bytes:02x?}");
}

fn bases() -> Vec<Vec<u8>> {
    let mut bases = Vec::new();
    for options in [0, 1, 10] {
        bases.push(frame(6, options, &segment(5, 0x10)));
        bases.push(frame(6, options, &segment(15, 0x18)));
        bases.push(frame(17, options, &datagram(24)));
        bases.push(frame(
            1,
            options,
            &[
                8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
            ],
        ));
        bases.push(frame(89, options, &[0; 24]));
    }
    bases.push([frame(6, 0, &segment(5, 0x10)), vec![0xff; 30]].concat());
    bases.push(frame(17, 0, &datagram(8)[..8]));
    bases.push([frame(17, 0, &datagram(8)[..8]), vec![0; 18]].concat());
    bases
}

#[test]
fn an_ordinary_packet_is_read_field_by_field() {
    let bytes = frame(6, 0, &segment(5, 0x12));
    let ip = Ipv4 {
        source: u32::from_ne_bytes([198, 51, 100, 7]),
        destination: u32::from_ne_bytes([192, 0, 2, 10]),
        protocol: 6,
        ttl: 63,
        header_length: 20,
        total_length: 44,
        fragment: Fragment::No,
        sound: true,
    };
    assert_eq!(network(&&bytes[..]), Network::Ipv4(ip));
    let ports = Ports {
        source: 40_000_u16.to_be(),
        destination: 80_u16.to_be(),
        flags: TcpFlags(0x12),
    };
    assert_eq!(transport(&&bytes[..], &ip), Ok(Transport::Ports(ports)));
    let plain = plain_key(bytes.first_chunk().unwrap(), TCP);
    let key = FlowKey::new(
        "198.51.100.7:40000".parse().unwrap(),
        "192.0.2.10:80".parse().unwrap(),
        6,
    );
    assert_eq!(plain, key);
}

#[test]
fn every_truncation_is_read_as_it_should_be() {
    for base in bases() {
        for length in 0..=base.len() {
            hold(&base[..length]);
        }
    }
}

#[test]
fn every_value_of_every_byte_of_the_headers_is_read_as_it_should_be() {
    for base in bases() {
        for at in 0..base.len().min(60) {
            for value in 0..=u8::MAX {
                let mut bytes = base.clone();
                bytes[at] = value;
                hold(&bytes);
            }
        }
    }
}

#[test]
fn every_pair_of_lengths_is_read_as_it_should_be() {
    for base in [frame(6, 0, &segment(6, 0x10)), frame(17, 0, &datagram(24))] {
        let (total, inner) = (17, if base[23] == 6 { 46 } else { 39 });
        for length in 0..=u8::MAX {
            for inside in 0..=u8::MAX {
                for fragment in [0, 0x20] {
                    let mut bytes = base.clone();
                    (bytes[total], bytes[inner], bytes[20]) = (length, inside, fragment);
                    hold(&bytes);
                }
            }
        }
    }
}

#[test]
fn flags_are_told_apart() {
    for byte in 0..=u8::MAX {
        let flags = TcpFlags(byte);
        let [fin, syn, rst, ack] = [0, 1, 2, 4].map(|bit| byte >> bit & 1 == 1);
        assert_eq!(flags.opens(), syn && !ack, "{byte:#x}");
        let nonsense = (syn && (fin || rst)) || [fin, syn, rst, ack] == [false; 4];
        assert_eq!(flags.nonsense(), nonsense, "{byte:#x}");
        for mask in 0..=u8::MAX {
            let any = (0..8).any(|bit| byte >> bit & 1 == 1 && mask >> bit & 1 == 1);
            assert_eq!(flags.any(mask), any);
        }
    }
}

#[test]
fn nobody_answers_to_a_martian() {
    for first in 0..=u8::MAX {
        let martian = match first {
            0 | 127 => true,
            1..=223 => false,
            _ => true,
        };
        for rest in [[0; 3], [255; 3], [127, 0, 224]] {
            let source = u32::from_ne_bytes([first, rest[0], rest[1], rest[2]]);
            assert_eq!(is_martian(source), martian, "{first}");
        }
    }
}

#[test]
fn a_frame_is_for_the_host_whose_six_bytes_it_begins_with() {
    let bytes = frame(6, 0, &segment(5, 2));
    let window = bytes.first_chunk::<PLAIN>().unwrap();
    let mac = |bytes: [u8; 6]| {
        let mut eight = [0; 8];
        eight[..6].copy_from_slice(&bytes);
        u64::from_ne_bytes(eight)
    };
    let ours: [u8; 6] = bytes[..6].try_into().unwrap();
    assert!(is_for(window, mac(ours)));
    for byte in 0..6 {
        for bit in 0..8 {
            let mut other = ours;
            other[byte] ^= 1 << bit;
            assert!(!is_for(window, mac(other)), "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn a_destination_port_is_told_wherever_the_header_leads_to_one() {
    // What is wrong behind the ports, or with lengths, says nothing of them.
    for (protocol, inside) in [
        (6, &segment(5, 2)[..]),
        (6, &segment(15, 0)[..12]),
        (17, &datagram(3)),
    ] {
        for options in [0, 1, 10] {
            let bytes = frame(protocol, options, inside);
            let port = |bytes: &[u8]| {
                let Network::Ipv4(ip) = network(&bytes) else {
                    panic!("it is IPv4")
                };
                destination_port(&bytes, &ip)
            };
            let at = 14 + 20 + 4 * usize::from(options) + 2;
            let wanted = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            assert_eq!(port(&bytes), Some(wanted), "{protocol} {options}");
            let with = |at: usize, byte: u8| {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                bytes
            };
            assert_eq!(port(&with(23, 1)), None, "no ports in ICMP");
            assert_eq!(port(&with(21, 1)), None, "none in a later fragment");
            assert_eq!(port(&with(14, 0x44)), None, "no header is as short");
            assert_eq!(
                port(&with(20, 0x20)),
                Some(wanted),
                "the first fragment has them"
            );
            assert_eq!(port(&bytes[..=at]), None, "cut short");
        }
    }
}
