//! Frames that contradict themselves: to a service they drop under their reason, to anybody else they pass.

use lb_tests::frames::{Frame, Ipv4, TcpFlags, Transport};

use crate::world::*;

/// A frame's bytes with one thing broken.
struct Broken {
    name: &'static str,
    reason: &'static str,
    bytes: fn(to: &str) -> Vec<u8>,
}

fn tcp(to: &str) -> Vec<u8> {
    syn(CLIENT, to).bytes()
}

fn udp(to: &str) -> Vec<u8> {
    Frame::udp(CLIENT, to).payload(b"data").bytes()
}

fn with(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

fn flags(to: &str, flags: TcpFlags) -> Vec<u8> {
    syn(CLIENT, to).flags(flags).bytes()
}

const TCP: &[Broken] = &[
    Broken {
        name: "header length of 4 words",
        reason: "malformed_ip",
        bytes: |to| with(tcp(to), 14, 0x44),
    },
    Broken {
        name: "total length below the header's",
        reason: "malformed_ip",
        bytes: |to| with(tcp(to), 17, 19),
    },
    Broken {
        name: "total length above the frame's",
        reason: "malformed_ip",
        bytes: |to| with(tcp(to), 16, 1),
    },
    Broken {
        name: "header longer than the packet",
        reason: "malformed_ip",
        bytes: |to| with(tcp(to), 14, 0x4f),
    },
    Broken {
        name: "segment cut after the ports",
        reason: "malformed_tcp",
        bytes: |to| {
            let mut bytes = with(tcp(to), 17, 24);
            bytes.truncate(38);
            bytes
        },
    },
    Broken {
        name: "data offset of 4 words",
        reason: "malformed_tcp",
        bytes: |to| with(tcp(to), 46, 0x40),
    },
    Broken {
        name: "data offset behind the end",
        reason: "malformed_tcp",
        bytes: |to| with(tcp(to), 46, 0xf0),
    },
    Broken {
        name: "no flags",
        reason: "malformed_tcp",
        bytes: |to| flags(to, TcpFlags(0)),
    },
    Broken {
        name: "SYN and FIN",
        reason: "malformed_tcp",
        bytes: |to| flags(to, TcpFlags::SYN | TcpFlags::FIN),
    },
    Broken {
        name: "SYN and RST",
        reason: "malformed_tcp",
        bytes: |to| flags(to, TcpFlags::SYN | TcpFlags::RST),
    },
];

const UDP: &[Broken] = &[
    Broken {
        name: "datagram cut after the ports",
        reason: "malformed_udp",
        bytes: |to| {
            let mut bytes = with(udp(to), 17, 24);
            bytes.truncate(38);
            bytes
        },
    },
    Broken {
        name: "length below the header's",
        reason: "malformed_udp",
        bytes: |to| with(udp(to), 39, 7),
    },
    Broken {
        name: "length above the packet's",
        reason: "malformed_udp",
        bytes: |to| with(udp(to), 39, 13),
    },
];

#[test]
fn malformed_packets_of_a_service_drop_under_their_reason_and_others_pass() {
    let mut program = world();
    for (table, ours, foreign) in [(TCP, WEB, "203.0.113.5:80"), (UDP, DNS, "203.0.113.5:53")] {
        for broken in table {
            for (to, fate) in [(ours, Fate::Drops(broken.reason)), (foreign, Fate::Passes)] {
                let sent = (broken.bytes)(to);
                let outcome = program.run_bytes(&sent).unwrap();
                if let Some(difference) = fate.differs(&sent, &outcome) {
                    panic!("{} to {to}: {difference}", broken.name);
                }
            }
        }
    }
    assert!(
        program.flows().unwrap().is_empty(),
        "a malformed packet made a flow"
    );
}

#[test]
fn a_short_echo_request_to_a_vip_drops() {
    let vip = *socket(WEB).ip();
    let message = Transport::Other {
        protocol: 1,
        bytes: vec![8, 0, 0, 0],
    };
    let frame = Frame::ipv4_packet(Ipv4::new(*socket(CLIENT).ip(), vip, message)).bytes();
    let outcome = world().run_bytes(&frame).unwrap();
    assert!(
        Fate::Drops("malformed_icmp")
            .differs(&frame, &outcome)
            .is_none(),
        "{outcome:?}"
    );
}

#[test]
fn every_truncation_and_every_flipped_bit_leaves_the_program_standing() {
    let mut program = world();
    for frame in [tcp(WEB), udp(DNS)] {
        for length in 14..frame.len() {
            let outcome = program.run_bytes(&frame[..length]).unwrap();
            assert!(
                (1..=4).contains(&outcome.action),
                "{length} bytes: {outcome:?}"
            );
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let outcome = program.run_bytes(&flipped).unwrap();
            assert!((1..=4).contains(&outcome.action), "bit {bit}: {outcome:?}");
        }
    }
}
