//! Frames that contradict themselves: to a service they drop under their reason, to anybody else they pass.

use lb_tests::{
    frames::{Frame, Ipv4, TcpFlags, Transport},
    program::Program,
};

use crate::{
    known::{FLOWS, Flow},
    oracle,
    world::*,
};

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

/// Names of those whose headers don't lead to a port: they may be a service's.
const WITHOUT_A_PORT: [&str; 2] = ["header length of 4 words", "header longer than the packet"];

#[test]
fn malformed_packets_to_a_port_without_a_service_pass_where_the_port_can_be_told() {
    let mut program = world();
    for (table, to) in [(TCP, "192.0.2.10:81"), (UDP, "192.0.2.10:54")] {
        for broken in table {
            let fate = if WITHOUT_A_PORT.contains(&broken.name) {
                Fate::Drops(broken.reason)
            } else {
                Fate::Passes
            };
            let sent = (broken.bytes)(to);
            let outcome = program.run_bytes(&sent).unwrap();
            if let Some(difference) = fate.differs(&sent, &outcome) {
                panic!("{} to {to}: {difference}", broken.name);
            }
        }
    }
    // Port 0 is nobody's, though the markers of VIPs stand under it.
    let sent = flags("192.0.2.10:0", TcpFlags(0));
    let outcome = program.run_bytes(&sent).unwrap();
    assert_eq!(Fate::Passes.differs(&sent, &outcome), None);
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

/// Frames of every kind, and the flow that is established before each.
fn bases() -> Vec<(Vec<u8>, Option<Flow>)> {
    let (client, vip) = (*socket(CLIENT).ip(), *socket(WEB).ip());
    let options = syn(CLIENT, WEB).ip(|ip| ip.options = vec![1; 4]);
    let mut bases = vec![
        (tcp(WEB), None),
        (options.bytes(), None),
        (
            Frame::tcp(CLIENT, WEB).payload(b"from the middle").bytes(),
            None,
        ),
        (udp(DNS), None),
        (Frame::echo_request(client, vip, 7, 9).bytes(), None),
    ];
    for flow in FLOWS {
        bases.push((flow.there().bytes(), Some(flow)));
        bases.push((flow.back().bytes(), Some(flow)));
    }
    bases
}

/// One flow after the other, and frames that are each held against what should become of them.
struct Trial {
    program: Program,
    flow: Option<Flow>,
    /// Nothing but the flow is in the table, as far as the counters tell.
    fresh: bool,
}

impl Trial {
    fn new() -> Self {
        Self {
            program: world_of(64),
            flow: None,
            fresh: false,
        }
    }

    fn begin(&mut self, flow: Option<Flow>) {
        self.flow = flow;
        self.fresh = false;
    }

    fn hold(&mut self, sent: &[u8], what: &str) {
        let (program, flow) = (&mut self.program, self.flow.as_ref());
        if !self.fresh {
            program.forget_flows().unwrap();
            program.allow_all().unwrap();
            if let Some(flow) = flow {
                flow.establish(program);
            }
        }
        let before = Counts::of(program);
        let outcome = program.run_bytes(sent).unwrap();
        let after = Counts::of(program);
        let answers = oracle::answers(sent, flow);
        let right = answers
            .iter()
            .any(|answer| answer.is(&outcome, &before, &after, sent.len()));
        assert!(
            right,
            "{what} of {flow:?}\nsent {sent:02x?}\nexpected {answers:02x?}\nsaw {outcome:02x?}\ncounted {:?}",
            after.since(&before)
        );
        self.fresh = before == after;
    }

    /// Whether the table is whole after all.
    fn end(mut self) {
        let faults = self.program.table_faults().unwrap();
        assert_eq!(faults, Vec::<String>::new());
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_ends_as_it_should() {
    let mut trial = Trial::new();
    for (frame, flow) in bases() {
        trial.begin(flow);
        for length in 14..=frame.len() {
            let what = format!("{length} bytes");
            trial.hold(&frame[..length], &what);
        }
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let what = format!("bit {} of byte {}", bit % 8, bit / 8);
            trial.hold(&flipped, &what);
        }
    }
    trial.end();
}

#[test]
fn every_value_of_a_byte_that_decides_ends_as_it_should() {
    /// Version and header length, total length, TTL; then the length of UDP, or the data offset and flags of TCP.
    const BYTES: [usize; 6] = [14, 17, 22, 39, 46, 47];
    let mut trial = Trial::new();
    for (frame, flow) in bases() {
        trial.begin(flow);
        for at in BYTES.into_iter().filter(|at| *at < frame.len()) {
            for value in 0..=u8::MAX {
                let sent = with(frame.clone(), at, value);
                let what = format!("byte {at} {value:#04x}");
                trial.hold(&sent, &what);
            }
        }
    }
    trial.end();
}

#[test]
fn a_total_length_above_the_frames_is_malformed_by_however_little() {
    let mut trial = Trial::new();
    for (frame, flow) in bases() {
        trial.begin(flow);
        let total = u16::from_be_bytes([frame[16], frame[17]]);
        // The Ethernet header's 14 bytes are no part of it.
        for surplus in (1..=16).chain([255, 256]) {
            let [high, low] = (total + surplus).to_be_bytes();
            let longer = with(with(frame.clone(), 16, high), 17, low);
            let what = format!("total length {surplus} above the frame's");
            trial.hold(&longer, &what);
            // As much room behind it makes it right, but for what the transport says.
            let roomy = [&longer[..], &vec![0; usize::from(surplus)]].concat();
            let what = format!("{surplus} bytes more");
            trial.hold(&roomy, &what);
        }
        for shortfall in 1..=total.min(60) {
            let [high, low] = (total - shortfall).to_be_bytes();
            let shorter = with(with(frame.clone(), 16, high), 17, low);
            let what = format!("total length {shortfall} below the frame's");
            trial.hold(&shorter, &what);
        }
    }
}
