//! Packets of flows that both ends have shown: every byte of what leaves, what is counted, and what is not plain.

use lb_common::{
    abi::{ConfigRow, word::BackendState},
    flow::State,
};
use lb_tests::{
    frames::{DEFAULT_SOURCE, Frame, Mac, TcpFlags, Transport, UdpChecksum},
    program::{INGRESS, OTHER, OTHER_MAC, OUR_ADDRESS, OUR_MAC, Program},
};

use crate::{ACK, FIN, SYN_ACK, expect, world::*};

/// A flow that the tests establish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) tcp: bool,
    /// Row and address of the service.
    pub(crate) service: (usize, &'static str),
    /// Row and address of the backend.
    pub(crate) backend: (u8, &'static str),
}

/// One whose backend is behind the client's interface, one behind another, and a UDP flow.
pub(crate) const FLOWS: [Flow; 3] = [
    Flow {
        name: "TCP, one interface",
        tcp: true,
        service: (1, WEB),
        backend: (1, BACKEND_1),
    },
    Flow {
        name: "TCP, two interfaces",
        tcp: true,
        service: (1, WEB),
        backend: (2, BACKEND_2),
    },
    Flow {
        name: "UDP",
        tcp: false,
        service: (2, DNS),
        backend: (3, BACKEND_3),
    },
];

/// Long enough that a UDP datagram has the length of a plain packet, and odd.
const DATA: &[u8] = b"some data, odd";

impl Flow {
    /// A packet of the client's.
    pub(crate) fn there(&self) -> Frame {
        self.packet(CLIENT, self.service.1)
    }

    /// A packet of the backend's.
    pub(crate) fn back(&self) -> Frame {
        self.packet(self.backend.1, CLIENT)
            .source_mac(backend_mac(self.backend.0))
    }

    fn packet(&self, from: &str, to: &str) -> Frame {
        if self.tcp {
            Frame::tcp(from, to).payload(DATA)
        } else {
            Frame::udp(from, to).payload(DATA)
        }
    }

    /// What becomes of a frame of the client's.
    pub(crate) fn sent(&self, frame: &Frame) -> Fate {
        let (number, address) = self.backend;
        if number == 1 {
            Fate::Leaves(to_backend(frame, number, address))
        } else {
            Fate::Crosses(across_to_backend(frame, number, address))
        }
    }

    /// What becomes of a frame of the backend's, for a client behind this MAC address.
    pub(crate) fn answered(&self, frame: &Frame, client: Mac) -> Fate {
        Fate::Leaves(to_client(frame, self.service.1, client))
    }

    /// Has both ends show themselves.
    pub(crate) fn establish(&self, program: &mut Program) {
        if self.backend.0 == 2 {
            // Backend 1 has its turn first.
            program.run(&syn("198.51.100.99:9", WEB)).unwrap();
        }
        let frames = if self.tcp {
            vec![
                self.there().flags(TcpFlags::SYN).payload(&[]),
                self.back().flags(SYN_ACK).payload(&[]),
                self.there().payload(&[]),
            ]
        } else {
            vec![self.there(), self.back()]
        };
        for frame in frames {
            let outcome = program.run(&frame).unwrap();
            assert!(
                matches!(outcome.counted[..], ["transmit" | "redirect"]),
                "{}: {outcome:?}",
                self.name
            );
        }
    }

    fn established(&self) -> Program {
        let mut program = world();
        self.establish(&mut program);
        let established = State::Established as u8;
        assert_eq!(states(&mut program), [established; 2], "{}", self.name);
        program
    }
}

/// The states of both entries of the client's flow.
fn states(program: &mut Program) -> Vec<u8> {
    let entries = program.entries().unwrap();
    let client = socket(CLIENT);
    let own = entries
        .iter()
        .filter(|held| held.key.source() == client || held.key.destination() == client);
    own.map(|held| held.recipe.state()).collect()
}

/// Frames that differ in what a balancer has to leave alone, and in what decides how it reads them.
fn variants(plain: &Frame) -> Vec<(&'static str, Frame)> {
    let mut variants = vec![
        ("plain", plain.clone()),
        ("no data", plain.clone().payload(&[])),
        ("a byte", plain.clone().payload(&[0xff])),
        ("eleven bytes", plain.clone().payload(&[1; 11])),
        ("twelve bytes", plain.clone().payload(&[2; 12])),
        ("much data", plain.clone().payload(&[0xa5; 1_400])),
        ("zeroes", plain.clone().payload(&[0; 64])),
        ("a trailer", plain.clone().trailer(&[0xff; 7])),
        (
            "no data, padded",
            plain.clone().payload(&[]).trailer(&[0; 6]),
        ),
        ("two hops left", plain.clone().ttl(2)),
        ("all hops left", plain.clone().ttl(255)),
        (
            "DSCP and ECN",
            plain.clone().ip(|ip| ip.type_of_service = 0xbb),
        ),
        (
            "may be fragmented",
            plain.clone().ip(|ip| ip.dont_fragment = false),
        ),
        (
            "another number",
            plain.clone().ip(|ip| ip.identification = 0xffff),
        ),
        (
            "IPv4 options",
            plain
                .clone()
                .ip(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0, 0]),
        ),
        (
            "as many IPv4 options as there may be",
            plain.clone().ip(|ip| ip.options = vec![1; 40]),
        ),
    ];
    match &plain.ipv4().payload {
        Transport::Tcp(_) => variants.extend([
            (
                "TCP options",
                plain
                    .clone()
                    .segment(|segment| segment.options = vec![1; 12]),
            ),
            (
                "as many TCP options as there may be",
                plain
                    .clone()
                    .segment(|segment| segment.options = vec![1; 40]),
            ),
            (
                "PSH, URG and ECN",
                plain
                    .clone()
                    .flags(ACK | TcpFlags::PSH | TcpFlags::URG | TcpFlags::ECE | TcpFlags::CWR),
            ),
            (
                "the last numbers",
                plain.clone().segment(|segment| {
                    segment.sequence = u32::MAX;
                    segment.acknowledgement = u32::MAX;
                    segment.window = u16::MAX;
                    segment.urgent = u16::MAX;
                }),
            ),
        ]),
        _ => variants.push((
            "no checksum",
            plain
                .clone()
                .datagram(|datagram| datagram.checksum = UdpChecksum::Absent),
        )),
    }
    variants
}

#[test]
fn every_byte_of_a_known_flows_packets_is_right_in_both_directions_and_each_is_counted() {
    for flow in FLOWS {
        let mut program = flow.established();
        let (service, backend) = (flow.service.0, usize::from(flow.backend.0));
        let mut counts = Counts::of(&program);
        for (plain, reply) in [(flow.there(), false), (flow.back(), true)] {
            for (name, frame) in variants(&plain) {
                let what = format!("{}, {name}, reply {reply}", flow.name);
                let fate = if reply {
                    flow.answered(&frame, DEFAULT_SOURCE)
                } else {
                    flow.sent(&frame)
                };
                expect(&mut program, &what, &frame, &fate);
                counts.frame(service, backend, reply, frame.bytes().len());
                assert_eq!(Counts::of(&program), counts, "{what}");
            }
        }
        let established = State::Established as u8;
        assert_eq!(states(&mut program), [established; 2], "{}", flow.name);
        assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_datagram_whose_new_checksum_is_zero_does_not_say_that_it_has_none() {
    let flow = FLOWS[2];
    let mut program = flow.established();
    for (plain, reply) in [(flow.there(), false), (flow.back(), true)] {
        let fate = |frame: &Frame| {
            if reply {
                flow.answered(frame, DEFAULT_SOURCE)
            } else {
                flow.sent(frame)
            }
        };
        // Data that takes up what is left of the sum makes it all ones.
        let plain = plain.payload(&[0; 14]);
        let (Fate::Leaves(out) | Fate::Crosses(out)) = fate(&plain) else {
            panic!("it is sent on");
        };
        let left = &out.bytes()[40..42];
        let frame = plain.payload(&[left, &[0; 12]].concat());
        let (Fate::Leaves(out) | Fate::Crosses(out)) = fate(&frame) else {
            panic!("it is sent on");
        };
        assert_eq!(out.bytes()[40..42], [0xff; 2]);
        expect(&mut program, "a sum of all ones", &frame, &fate(&frame));
    }
}

#[test]
fn a_packet_touches_its_own_entry() {
    for flow in FLOWS {
        for frame in [flow.there(), flow.back()] {
            let mut program = flow.established();
            program.age_flows(500).unwrap();
            program.run(&frame).unwrap();
            let now = program.jiffies().unwrap();
            let (source, destination) = frame_ends(&frame);
            let entries = program.entries().unwrap();
            let own = entries
                .iter()
                .find(|held| held.key.source() == source && held.key.destination() == destination)
                .unwrap();
            let last = u64::from(own.recipe.last_seen());
            let age = (now & 0xffff_ffff).wrapping_sub(last) & 0xffff_ffff;
            assert!(age < 250, "{}: silent for {age} ticks", flow.name);
        }
    }
}

fn frame_ends(frame: &Frame) -> (std::net::SocketAddrV4, std::net::SocketAddrV4) {
    let ip = frame.ipv4();
    let (from, to) = match &ip.payload {
        Transport::Tcp(segment) => (segment.source_port, segment.destination_port),
        Transport::Udp(datagram) => (datagram.source_port, datagram.destination_port),
        other => panic!("no ports: {other:?}"),
    };
    (
        std::net::SocketAddrV4::new(ip.source, from),
        std::net::SocketAddrV4::new(ip.destination, to),
    )
}

#[test]
fn what_a_known_flow_may_not_send_ends_under_its_reason_and_counts_for_nobody() {
    for flow in FLOWS {
        let mut program = flow.established();
        let counts = Counts::of(&program);
        for plain in [flow.there(), flow.back()] {
            for first in [plain.clone(), plain.clone().payload(&[9; 16])] {
                let first = first.fragment(0, true);
                let fate = Fate::Drops("fragment");
                expect(&mut program, "a first fragment", &first, &fate);
            }
        }
        let later = flow.there().fragment(185, false);
        let fate = Fate::Drops("fragment");
        expect(&mut program, "a later fragment", &later, &fate);
        let later = flow.back().fragment(185, true);
        expect(
            &mut program,
            "a reply's later fragment",
            &later,
            &Fate::Passes,
        );
        assert_eq!(Counts::of(&program), counts, "{}", flow.name);
    }
}

#[test]
fn a_known_flows_ttl_that_runs_out_is_answered_in_both_directions() {
    for flow in FLOWS {
        let mut program = flow.established();
        let counts = Counts::of(&program);
        for plain in [flow.there(), flow.back()] {
            for ttl in [0, 1] {
                let frame = plain.clone().ttl(ttl);
                let outcome = program.run(&frame).unwrap();
                assert_eq!(
                    (outcome.action, &outcome.counted[..]),
                    (3, &["time_exceeded"][..]),
                    "{}",
                    flow.name
                );
                let answer = outcome.frame();
                assert_eq!(answer.faults(), Vec::<String>::new());
                assert_eq!((answer.source, answer.destination), (OUR_MAC, frame.source));
                let (from, to) = (answer.ipv4().source, answer.ipv4().destination);
                assert_eq!((from, to), (OUR_ADDRESS, frame.ipv4().source));
                let quoted = &answer.icmp_message().payload;
                assert_eq!(quoted[..], frame.bytes()[14..][..28]);
            }
        }
        assert_eq!(Counts::of(&program), counts, "{}", flow.name);
    }
}

#[test]
fn every_flag_that_opens_or_ends_a_connection_changes_the_state_in_both_entries() {
    let flow = FLOWS[0];
    let rst_ack = TcpFlags::RST | TcpFlags::ACK;
    for (reply, flags, state) in [
        (false, FIN, State::ClosingByClient),
        (true, FIN, State::ClosingByBackend),
        (false, FIN | TcpFlags::PSH, State::ClosingByClient),
        (false, TcpFlags::RST, State::Reset),
        (true, TcpFlags::RST, State::Reset),
        (false, rst_ack, State::Reset),
        (true, rst_ack, State::Reset),
        // What a forger or a retransmission may send: the backend knows.
        (false, TcpFlags::SYN, State::Established),
        (true, SYN_ACK, State::Established),
    ] {
        let mut program = flow.established();
        let plain = if reply { flow.back() } else { flow.there() };
        let frame = plain.flags(flags);
        let fate = if reply {
            flow.answered(&frame, DEFAULT_SOURCE)
        } else {
            flow.sent(&frame)
        };
        let what = format!("{flags:?}, reply {reply}");
        expect(&mut program, &what, &frame, &fate);
        assert_eq!(states(&mut program), [state as u8; 2], "{what}");
    }
}

#[test]
fn a_new_tenant_of_the_backends_row_gets_none_of_the_old_ones_packets() {
    for flow in FLOWS {
        let mut program = flow.established();
        let (number, address) = flow.backend;
        let flags = BackendState::IN_USE | BackendState::ACCEPTS;
        program
            .set_backend_state(number.into(), socket(address), flags, 2)
            .unwrap();
        let frame = flow.there();
        // The slots name the row's old tenant, so that of WEB the other backend is left, and of DNS none.
        let fate = match number {
            1 => Fate::Crosses(across_to_backend(&frame, 2, BACKEND_2)),
            2 => Fate::Leaves(to_backend(&frame, 1, BACKEND_1)),
            _ => Fate::Drops("no_backend"),
        };
        expect(&mut program, flow.name, &frame, &fate);
    }
}

#[test]
fn replies_follow_a_client_that_moved() {
    let moved = Mac([0x06, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
    for flow in FLOWS {
        let mut program = flow.established();
        let (there, back) = (flow.there(), flow.back());
        for client in [DEFAULT_SOURCE, moved, DEFAULT_SOURCE] {
            let there = there.clone().source_mac(client);
            for _ in 0..2 {
                expect(&mut program, flow.name, &there, &flow.sent(&there));
                expect(
                    &mut program,
                    flow.name,
                    &back,
                    &flow.answered(&back, client),
                );
            }
        }
    }
}

#[test]
fn a_way_that_changes_or_goes_is_known_flows_too() {
    for flow in FLOWS {
        let mut program = flow.established();
        let (number, address) = flow.backend;
        let slot = if number == 1 { INGRESS } else { OTHER };
        let (there, back) = (flow.there(), flow.back());
        let replaced = Mac([0x02, 0xff, 0xee, 0xdd, 0xcc, 0xbb]);
        let row = |program: &mut Program, hop| {
            program
                .set_backend(number.into(), socket(address), hop)
                .unwrap();
        };
        row(&mut program, Some((replaced, slot)));
        let fate = match flow.sent(&there) {
            Fate::Leaves(frame) => Fate::Leaves(frame.destination_mac(replaced)),
            Fate::Crosses(frame) => Fate::Crosses(frame.destination_mac(replaced)),
            _ => panic!("it is sent on"),
        };
        expect(&mut program, "another neighbour", &there, &fate);

        row(&mut program, None);
        let fate = Fate::Drops("no_neighbour");
        expect(&mut program, "no neighbour", &there, &fate);
        assert_eq!(program.wanted().unwrap(), [u32::from(number)]);
        program.set_config(ConfigRow::HOST_FORWARDS).unwrap();
        let fate = Fate::Climbs(there.clone().sent_to(address));
        expect(&mut program, "the host forwards", &there, &fate);
        program.set_config(0).unwrap();

        // Slot 3 has an interface and no device to redirect to, slot 4 nothing.
        program
            .set_interface(3, 3, Mac([2; 6]), OUR_ADDRESS)
            .unwrap();
        for slot in [3, 4] {
            row(&mut program, Some((backend_mac(number), slot)));
            let outcome = program.run(&there).unwrap();
            assert_eq!(
                (outcome.action, &outcome.counted[..]),
                (1, &["no_interface"][..]),
                "slot {slot}"
            );
        }
        row(&mut program, Some((backend_mac(number), slot)));
        expect(&mut program, "as before", &there, &flow.sent(&there));
        if slot == OTHER {
            // The interface goes before its device does.
            let address = std::net::Ipv4Addr::UNSPECIFIED;
            program.set_interface(OTHER, 0, OTHER_MAC, address).unwrap();
            let fate = Fate::Drops("no_interface");
            expect(&mut program, "an interface that is gone", &there, &fate);
            program.set_interface(OTHER, 2, OTHER_MAC, address).unwrap();
        }
        let fate = flow.answered(&back, DEFAULT_SOURCE);
        expect(&mut program, "a reply", &back, &fate);
    }
}
