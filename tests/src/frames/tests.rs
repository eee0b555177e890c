//! Frames survive the way to bytes and back, and bytes that are none are refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const CLIENT: &str = "10.1.0.10:40000";
const VIP: &str = "10.1.0.100:80";

fn samples() -> Vec<Frame> {
    let client = Ipv4Addr::new(10, 1, 0, 10);
    let vip = Ipv4Addr::new(10, 1, 0, 100);
    vec![
        Frame::tcp(CLIENT, VIP),
        Frame::tcp(CLIENT, VIP)
            .flags(TcpFlags::SYN | TcpFlags::ECE)
            .payload(b"odd")
            .trailer(&[0; 9]),
        Frame::tcp(CLIENT, VIP)
            .segment(|tcp| tcp.options = vec![1; 8])
            .ip(|ip| ip.options = vec![1; 4]),
        Frame::tcp(CLIENT, VIP).vlan(7).vlan(9),
        Frame::udp(CLIENT, VIP).payload(b"hello"),
        Frame::udp(CLIENT, VIP).datagram(|udp| udp.checksum = UdpChecksum::Absent),
        Frame::echo_request(client, vip, 1, 2),
        Frame::arp_request(client, vip),
        Frame::ipv6(
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::LOCALHOST,
            59,
            b"no next header",
        ),
        Frame::tcp(CLIENT, VIP).ip(|ip| {
            ip.payload = Transport::Other {
                protocol: 6,
                bytes: vec![1, 2, 3],
            }
        }),
    ]
}

#[test]
fn a_parsed_frame_equals_what_was_built() {
    for frame in samples() {
        let parsed = Frame::parse(&frame.bytes()).unwrap();
        assert_eq!(parsed, frame);
        assert_eq!(parsed.faults(), Vec::<String>::new(), "{frame:?}");
    }
}

#[test]
fn a_changed_byte_is_a_fault() {
    let bytes = Frame::tcp(CLIENT, VIP).payload(b"data").bytes();
    for offset in 14..bytes.len() {
        let mut changed = bytes.clone();
        changed[offset] ^= 0x01;
        match Frame::parse(&changed) {
            Ok(frame) => assert_ne!(
                frame.faults(),
                Vec::<String>::new(),
                "byte {offset} changed unseen: {frame:?}"
            ),
            Err(error) => assert!(error.to_string().contains("no room"), "{error}"),
        }
    }
}

#[test]
fn wrong_fields_survive_a_round_trip() {
    let wrong = [
        Frame::tcp(CLIENT, VIP).ip(|ip| ip.checksum = Some(1)),
        Frame::tcp(CLIENT, VIP).segment(|tcp| tcp.checksum = Some(1)),
        Frame::tcp(CLIENT, VIP).segment(|tcp| tcp.header_words = Some(4)),
        Frame::tcp(CLIENT, VIP).ip(|ip| ip.total_length = Some(9_000)),
        Frame::udp(CLIENT, VIP).datagram(|udp| udp.checksum = UdpChecksum::Wrong(1)),
        Frame::echo_request(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, 1, 1)
            .message(|icmp| icmp.checksum = Some(1)),
    ];
    for frame in wrong {
        let parsed = Frame::parse(&frame.bytes()).unwrap();
        assert_eq!(parsed, frame);
        assert_eq!(parsed.faults().len(), 1, "{:?}", parsed.faults());
    }
}

#[test]
fn checksums_are_those_of_a_known_header() {
    // The usual textbook example: a UDP packet from 192.168.0.1 to 192.168.0.199 whose header checksum is 0xb861.
    let header = [
        0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
        0xc7,
    ];
    assert_eq!(ones_complement_sum(0, &header), 0xffff);
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_ffff() {
    // Ports and payload chosen so that the sum over everything is zero.
    let mut frame = Frame::udp("10.0.0.1:1", "10.0.0.2:2").payload(&[0, 0]);
    let bytes = frame.bytes();
    let sum = u16::from_be_bytes([bytes[40], bytes[41]]);
    frame = frame.payload(&sum.to_be_bytes());
    let bytes = frame.bytes();
    assert_eq!([bytes[40], bytes[41]], [0xff, 0xff]);
    assert_eq!(Frame::parse(&bytes).unwrap(), frame);
}

#[test]
fn an_error_message_quotes_the_packet() {
    let cause = Frame::udp(CLIENT, VIP).ttl(1).payload(b"beyond the quote");
    let quoted = &cause.bytes()[14..14 + 28];
    let message = Icmp::new(Icmp::TIME_EXCEEDED, [0; 4], quoted);
    let quote = message.quote().unwrap();
    assert_eq!(quote.source.to_string(), CLIENT);
    assert_eq!(quote.destination.to_string(), VIP);
    assert_eq!(quote.header.ttl, 1);
}

#[test]
fn a_header_cut_short_names_the_field() {
    let error = Frame::parse(&Frame::tcp(CLIENT, VIP).bytes()[..20]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no room for the IPv4 fragment offset at byte 20 of 20"
    );
}
