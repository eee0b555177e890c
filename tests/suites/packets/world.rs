//! The tables that the packet cases run on, and what a case may expect.

use std::net::SocketAddrV4;

use lb_common::abi::{FlowCounters, Protocol};
use lb_tests::{
    frames::{Frame, Mac, TcpFlags},
    program::{self, INGRESS, OTHER, OTHER_MAC, OUR_MAC, Outcome, Program},
};

/// A client behind the ingress interface.
pub(crate) const CLIENT: &str = "198.51.100.7:40000";
/// TCP, backends 1 and 2 in turn.
pub(crate) const WEB: &str = "192.0.2.10:80";
/// UDP, backend 3.
pub(crate) const DNS: &str = "192.0.2.10:53";
/// TCP on another VIP, backend 1 alone.
pub(crate) const WEB_AGAIN: &str = "192.0.2.11:80";
/// TCP, no slots.
pub(crate) const EMPTY: &str = "192.0.2.12:80";
/// TCP, backend 4, whose MAC address is not known.
pub(crate) const FAR: &str = "192.0.2.13:80";

/// Backend 1, behind the ingress interface.
pub(crate) const BACKEND_1: &str = "10.2.0.11:8080";
/// Backend 2, behind the other interface.
pub(crate) const BACKEND_2: &str = "10.2.0.12:8080";
/// Backend 3, behind the other interface.
pub(crate) const BACKEND_3: &str = "10.2.0.13:5353";
/// Backend 4, next hop unknown.
pub(crate) const BACKEND_4: &str = "10.2.0.14:80";

/// MAC address of a backend.
pub(crate) const fn backend_mac(number: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 1, number])
}

/// The program with the tables above.
pub(crate) fn world() -> Program {
    furnished(Program::load(&program::object().unwrap()).unwrap())
}

/// The same with a flow table of another size.
pub(crate) fn world_of(flow_entries: u32) -> Program {
    let object = program::object().unwrap();
    furnished(Program::load_with_flow_entries(&object, flow_entries).unwrap())
}

fn furnished(mut program: Program) -> Program {
    for (id, address, hop) in [
        (1, BACKEND_1, Some((backend_mac(1), INGRESS))),
        (2, BACKEND_2, Some((backend_mac(2), OTHER))),
        (3, BACKEND_3, Some((backend_mac(3), OTHER))),
        (4, BACKEND_4, None),
    ] {
        program.set_backend(id, socket(address), hop).unwrap();
    }
    for (id, address, protocol, backends) in [
        (1, WEB, Protocol::Tcp, &[1u16, 2][..]),
        (2, DNS, Protocol::Udp, &[3]),
        (3, WEB_AGAIN, Protocol::Tcp, &[1]),
        (4, EMPTY, Protocol::Tcp, &[]),
        (5, FAR, Protocol::Tcp, &[4]),
    ] {
        program
            .set_service(id, socket(address), protocol, backends)
            .unwrap();
    }
    program
}

/// An address and port.
pub(crate) fn socket(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// A client's first segment.
pub(crate) fn syn(from: &str, to: &str) -> Frame {
    Frame::tcp(from, to).flags(TcpFlags::SYN)
}

/// What has to become of a frame.
pub(crate) enum Fate {
    /// Up the stack as it is.
    Passes,
    /// Dropped under this reason.
    Drops(&'static str),
    /// Out of the interface it came from, as this frame.
    Leaves(Frame),
    /// Out of the other interface, as this frame.
    Crosses(Frame),
    /// Up the stack, as this frame.
    Climbs(Frame),
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

impl Fate {
    /// What differs, in words; `None` where all is as expected.
    pub(crate) fn differs(&self, sent: &[u8], outcome: &Outcome) -> Option<String> {
        let (action, counted, frame) = match self {
            Self::Passes => (XDP_PASS, "pass", None),
            Self::Drops(reason) => (XDP_DROP, *reason, None),
            Self::Leaves(frame) => (XDP_TX, "transmit", Some(frame)),
            Self::Crosses(frame) => (XDP_REDIRECT, "redirect", Some(frame)),
            Self::Climbs(frame) => (XDP_PASS, "pass_rewritten", Some(frame)),
        };
        if outcome.action != action || outcome.counted != [counted] {
            return Some(format!(
                "expected action {action} counted as {counted}, saw {} as {:?}",
                outcome.action, outcome.counted
            ));
        }
        let expected = frame.map_or_else(|| sent.to_vec(), Frame::bytes);
        if outcome.bytes == expected {
            return None;
        }
        Some(match Frame::parse(&outcome.bytes) {
            Ok(seen) => format!(
                "expected {frame:#?}\nsaw {seen:#?}\nfaults {:?}",
                seen.faults()
            ),
            Err(error) => format!("not a frame: {error}: {:02x?}", outcome.bytes),
        })
    }
}

/// The frame as it leaves towards a backend behind the ingress interface.
pub(crate) fn to_backend(frame: &Frame, number: u8, address: &str) -> Frame {
    let ttl = frame.ipv4().ttl - 1;
    frame
        .clone()
        .sent_to(address)
        .ttl(ttl)
        .source_mac(OUR_MAC)
        .destination_mac(backend_mac(number))
}

/// The frame as it crosses towards a backend behind the other interface.
pub(crate) fn across_to_backend(frame: &Frame, number: u8, address: &str) -> Frame {
    to_backend(frame, number, address).source_mac(OTHER_MAC)
}

/// The reply as it leaves towards the client.
pub(crate) fn to_client(frame: &Frame, from: &str, client: Mac) -> Frame {
    let ttl = frame.ipv4().ttl - 1;
    frame
        .clone()
        .sent_from(from)
        .ttl(ttl)
        .source_mac(OUR_MAC)
        .destination_mac(client)
}

/// What services and backends have counted, by their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    services: Vec<FlowCounters>,
    backends: Vec<FlowCounters>,
}

/// Rows of services and of backends that are looked at: all that there are, the row that nobody has, and the one behind.
const ROWS: u16 = 7;

impl Counts {
    pub(crate) fn of(program: &Program) -> Self {
        Self {
            services: (0..ROWS)
                .map(|row| program.service_counters(row.into()))
                .collect(),
            backends: (0..ROWS).map(|row| program.backend_counters(row)).collect(),
        }
    }

    /// Rows that have counted since, each as it was and as it is.
    pub(crate) fn since(&self, before: &Self) -> Vec<(FlowCounters, FlowCounters)> {
        let rows = |counts: &Self| [&counts.services[..], &counts.backends].concat();
        let pairs = rows(before).into_iter().zip(rows(self));
        pairs.filter(|(before, after)| before != after).collect()
    }

    /// One more frame of that many bytes, from the client or to it.
    pub(crate) fn frame(&mut self, service: usize, backend: usize, reply: bool, bytes: usize) {
        for row in [&mut self.services[service], &mut self.backends[backend]] {
            let (packets, sum) = if reply {
                (&mut row.reverse_packets, &mut row.reverse_bytes)
            } else {
                (&mut row.forward_packets, &mut row.forward_bytes)
            };
            *packets += 1;
            *sum += bytes as u64;
        }
    }

    /// One more flow.
    pub(crate) fn flow(&mut self, service: usize, backend: usize) {
        self.services[service].new_flows += 1;
        self.backends[backend].new_flows += 1;
    }
}
