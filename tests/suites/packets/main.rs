//! One packet in, one verdict and one packet out: the real object under `BPF_PROG_TEST_RUN`.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what it saw by panicking, its helpers among it"
)]

mod answers;
mod expiry;
mod flows;
mod known;
mod malformed;
mod oracle;
mod overflow;
mod victims;
mod world;

use std::net::Ipv4Addr;

use lb_common::abi::ConfigRow;
use lb_tests::{
    frames::{
        DEFAULT_SOURCE, ETHERTYPE_IPV6, Frame, Icmp, Ipv4, Mac, TcpFlags, Transport, UdpChecksum,
    },
    program::{INGRESS, OTHER, OUR_ADDRESS, Program},
};
use world::*;

const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);

/// A case: what came before, the frame, and its fate.
struct Case {
    name: &'static str,
    before: Vec<Frame>,
    frame: Frame,
    fate: Fate,
}

fn case(name: &'static str, frame: Frame, fate: Fate) -> Case {
    Case {
        name,
        before: Vec::new(),
        frame,
        fate,
    }
}

fn run_all(cases: &[Case]) {
    let mut failures = Vec::new();
    let mut program = world();
    for case in cases {
        program.forget_flows().unwrap();
        for frame in &case.before {
            program.run(frame).unwrap();
        }
        let outcome = program.run(&case.frame).unwrap();
        if let Some(difference) = case.fate.differs(&case.frame.bytes(), &outcome) {
            failures.push(format!("{}: {difference}", case.name));
        }
    }
    assert!(!cases.is_empty());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Runs the frame and holds it against its fate.
fn expect(program: &mut Program, what: &str, frame: &Frame, fate: &Fate) {
    let outcome = program.run(frame).unwrap();
    if let Some(difference) = fate.differs(&frame.bytes(), &outcome) {
        panic!("{what}: {difference}");
    }
}

#[test]
fn a_frame_larger_than_the_mtu_of_its_way_out_drops_under_its_reason() {
    const MTU: u32 = 1_400;
    let mut program = world();
    for slot in [INGRESS, OTHER] {
        program.set_mtu(slot, MTU).unwrap();
    }
    let datagram = |packet: u32| {
        let payload = vec![7; packet as usize - 28];
        Frame::udp(CLIENT, DNS).payload(&payload)
    };
    let (fits, too_large) = (datagram(MTU), datagram(MTU + 1));
    // New, of a flow that no backend has answered, and of a known one on the fast path.
    for what in ["new", "unanswered", "established"] {
        let drops = Fate::Drops("exceeds_mtu");
        expect(&mut program, what, &too_large, &drops);
        let crosses = Fate::Crosses(across_to_backend(&fits, 3, BACKEND_3));
        expect(&mut program, what, &fits, &crosses);
        let reply = Frame::udp(BACKEND_3, CLIENT);
        let leaves = Fate::Leaves(to_client(&reply, DNS, DEFAULT_SOURCE));
        expect(&mut program, what, &reply, &leaves);
    }
    assert_eq!(program.service_counters(2).new_flows, 1);
    // Back out of the interface that it came by it is the kernel's to part: generic mode merges.
    let segment = Frame::tcp(CLIENT, WEB_AGAIN).payload(&[7; 1_400]);
    let leaves = Fate::Leaves(to_backend(&segment, 1, BACKEND_1));
    expect(&mut program, "one-arm", &segment, &leaves);
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let vip = Ipv4Addr::new(192, 0, 2, 10);
    let stranger = Ipv4Addr::new(203, 0, 113, 9);
    let ospf = Transport::Other {
        protocol: 89,
        bytes: vec![0; 24],
    };
    run_all(&[
        case(
            "ARP for the VIP",
            Frame::arp_request(stranger, vip),
            Fate::Passes,
        ),
        case(
            "IPv6",
            Frame::ipv6(
                "2001:db8::1".parse().unwrap(),
                "2001:db8::2".parse().unwrap(),
                6,
                &[0; 40],
            ),
            Fate::Passes,
        ),
        case(
            "IPv6's EtherType with an IPv4 header",
            Frame::other(ETHERTYPE_IPV6, &[0x45; 40]),
            Fate::Passes,
        ),
        case(
            "TCP to another address",
            syn(CLIENT, "203.0.113.1:80"),
            Fate::Passes,
        ),
        case(
            "TCP to another port of a VIP",
            syn(CLIENT, "192.0.2.10:22"),
            Fate::Passes,
        ),
        // Its keys in the map of services mark the VIP; none of them is a service.
        case(
            "UDP to port 0 of a VIP, too short for the fast path",
            Frame::udp(CLIENT, "192.0.2.10:0"),
            Fate::Passes,
        ),
        case(
            "TCP to port 0 of a VIP, behind a header with options",
            syn(CLIENT, "192.0.2.10:0").ip(|ip| ip.options = vec![1; 4]),
            Fate::Passes,
        ),
        case(
            "UDP to a port that is served for TCP",
            Frame::udp(CLIENT, WEB),
            Fate::Passes,
        ),
        case(
            "ping of the host",
            Frame::echo_request(stranger, OUR_ADDRESS, 1, 1),
            Fate::Passes,
        ),
        case(
            "a client talks to a backend itself",
            syn(CLIENT, BACKEND_1),
            Fate::Passes,
        ),
        case(
            "a backend's answer to the host's own health check",
            Frame::tcp(BACKEND_1, "10.1.0.1:51000").flags(SYN_ACK),
            Fate::Passes,
        ),
        case(
            "a backend's answer to a client that talks to it itself",
            Frame::tcp(BACKEND_1, CLIENT),
            Fate::Passes,
        ),
        case(
            "a broadcast frame",
            syn(CLIENT, WEB).destination_mac(Mac([0xff; 6])),
            Fate::Passes,
        ),
        case(
            "a neighbour's frame on a promiscuous interface",
            syn(CLIENT, WEB).destination_mac(Mac([2, 0, 0, 0, 9, 9])),
            Fate::Passes,
        ),
        case("a tagged frame", syn(CLIENT, WEB).vlan(7), Fate::Passes),
        case(
            "another protocol to a VIP",
            Frame::ipv4_packet(Ipv4::new(stranger, vip, ospf)),
            Fate::Passes,
        ),
        case(
            "ICMP of no concern to a VIP",
            Frame::icmp(stranger, vip, Icmp::new(13, [0; 4], &[0; 12])),
            Fate::Passes,
        ),
    ]);
}

#[test]
fn a_new_flow_goes_to_a_backend_rewritten() {
    let web = syn(CLIENT, WEB);
    let options = syn(CLIENT, WEB).ip(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0, 0]);
    let data = Frame::udp(CLIENT, DNS).payload(b"a question");
    let odd = syn(CLIENT, WEB).payload(b"odd").trailer(&[0xff; 5]);
    let no_sum = data
        .clone()
        .datagram(|datagram| datagram.checksum = UdpChecksum::Absent);
    let other = syn("198.51.100.8:40000", WEB);
    run_all(&[
        case(
            "TCP",
            web.clone(),
            Fate::Leaves(to_backend(&web, 1, BACKEND_1)),
        ),
        case(
            "TCP behind IPv4 options",
            options.clone(),
            Fate::Leaves(to_backend(&options, 1, BACKEND_1)),
        ),
        case(
            "TCP with data and padding",
            odd.clone(),
            Fate::Leaves(to_backend(&odd, 1, BACKEND_1)),
        ),
        case(
            "UDP",
            data.clone(),
            Fate::Crosses(across_to_backend(&data, 3, BACKEND_3)),
        ),
        case(
            "UDP without a checksum",
            no_sum.clone(),
            Fate::Crosses(across_to_backend(&no_sum, 3, BACKEND_3)),
        ),
        Case {
            name: "the second flow, through the other interface",
            before: vec![web],
            frame: other.clone(),
            fate: Fate::Crosses(across_to_backend(&other, 2, BACKEND_2)),
        },
    ]);
}

#[test]
fn what_is_ours_and_cannot_be_served_drops_under_its_reason() {
    run_all(&[
        case(
            "a service without backends",
            syn(CLIENT, EMPTY),
            Fate::Drops("no_backend"),
        ),
        case(
            "a next hop that is not known",
            syn(CLIENT, FAR),
            Fate::Drops("no_neighbour"),
        ),
        case(
            "a loopback source",
            syn("127.0.0.1:4000", WEB),
            Fate::Drops("martian_source"),
        ),
        case(
            "a multicast source",
            syn("224.0.0.1:4000", WEB),
            Fate::Drops("martian_source"),
        ),
        case(
            "a zero source",
            syn("0.0.0.0:4000", WEB),
            Fate::Drops("martian_source"),
        ),
        case(
            "a first fragment",
            Frame::udp(CLIENT, DNS).payload(&[0; 16]).fragment(0, true),
            Fate::Drops("fragment"),
        ),
        Case {
            name: "a first fragment of a reply",
            before: vec![Frame::udp(CLIENT, DNS)],
            frame: Frame::udp(BACKEND_3, CLIENT)
                .payload(&[0; 16])
                .fragment(0, true),
            fate: Fate::Drops("fragment"),
        },
        case(
            "a later fragment",
            Frame::udp(CLIENT, DNS).payload(&[0; 16]).fragment(2, false),
            Fate::Drops("fragment"),
        ),
        case(
            "an ICMP error to a VIP",
            Frame::icmp(
                Ipv4Addr::new(203, 0, 113, 1),
                Ipv4Addr::new(192, 0, 2, 10),
                Icmp::new(3, [0; 4], &[0; 28]),
            ),
            Fate::Drops("icmp_error"),
        ),
    ]);
}

#[test]
fn a_host_that_forwards_finds_the_unknown_next_hop_itself() {
    let mut program = world();
    program.set_config(ConfigRow::HOST_FORWARDS).unwrap();
    let frame = syn(CLIENT, FAR);
    // The host counts the hop, and the frame is addressed to it already.
    expect(
        &mut program,
        "unresolved",
        &frame,
        &Fate::Climbs(frame.clone().sent_to(BACKEND_4)),
    );
}

#[test]
fn the_maintenance_program_tells_the_time() {
    let mut program = world();
    let first = program.jiffies().unwrap();
    lb_tests::poll::until(lb_tests::poll::SOON, "jiffies to move", || {
        if program.jiffies().unwrap() > first {
            Ok(())
        } else {
            Err("still the same")
        }
    })
    .unwrap();
}
