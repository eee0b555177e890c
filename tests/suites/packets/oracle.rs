//! What should become of any frame, said from its bytes by the RFCs and the tables of [`crate::world`] alone. It shares nothing with the
//! code under test but the names of the verdicts.
//!
//! One established flow may be known; no other is. Where the rotation or a hash decides, every backend that may be
//! chosen is an answer.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_tests::{
    frames::{Frame, Icmp, Mac, ones_complement_sum},
    program::{OTHER_MAC, OUR_ADDRESS, OUR_MAC, Outcome},
};

use crate::{known::Flow, world::*};

/// What may become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) action: u32,
    pub(crate) verdict: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Rows of the service and the backend, and whether it is a reply, of a frame that was sent on.
    pub(crate) counted: Option<(usize, usize, bool)>,
    /// Rows of the service and the backend of a flow that it made.
    pub(crate) made: Option<(usize, usize)>,
}

impl Answer {
    /// Whether that is what became of it.
    pub(crate) fn is(
        &self,
        outcome: &Outcome,
        before: &Counts,
        after: &Counts,
        sent: usize,
    ) -> bool {
        let mut counts = before.clone();
        if let Some((service, backend, reply)) = self.counted {
            counts.frame(service, backend, reply, sent);
        }
        if let Some((service, backend)) = self.made {
            counts.flow(service, backend);
        }
        outcome.action == self.action
            && outcome.counted == [self.verdict]
            && outcome.bytes == self.bytes
            && *after == counts
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// Row, address, protocol and backends of each service.
const SERVICES: [(usize, &str, u8, &[u8]); 5] = [
    (1, WEB, TCP, &[1, 2]),
    (2, DNS, UDP, &[3]),
    (3, WEB_AGAIN, TCP, &[1]),
    (4, EMPTY, TCP, &[]),
    (5, FAR, TCP, &[4]),
];

const BACKENDS: [&str; 4] = [BACKEND_1, BACKEND_2, BACKEND_3, BACKEND_4];

fn vip(address: Ipv4Addr, protocol: Option<u8>) -> bool {
    SERVICES.iter().any(|(_, vip, serves, _)| {
        *socket(vip).ip() == address && protocol.is_none_or(|protocol| protocol == *serves)
    })
}

/// Everything that may rightly become of a frame, while `flow` is established.
pub(crate) fn answers(sent: &[u8], flow: Option<&Flow>) -> Vec<Answer> {
    const ETHERTYPE_IPV4: u16 = 0x0800;
    if sent.len() < 34 || two(sent, 12) != ETHERTYPE_IPV4 || sent[0] & 1 == 1 || sent[14] >> 4 != 4
    {
        return passes(sent);
    }
    let packet = Packet::of(sent);
    let (header, total) = (packet.header, usize::from(two(sent, 16)));
    if header < 20 || total < header || 14 + total > sent.len() {
        return packet.malformed("malformed_ip");
    }
    let inside = &sent[14 + header..14 + total];
    let fragments = two(sent, 20);
    let (more, offset) = (fragments & 0x2000 != 0, fragments & 0x1fff);
    if offset != 0 {
        let served = vip(packet.destination, Some(packet.protocol));
        return either(sent, served || packet.pings(), "fragment");
    }
    match packet.protocol {
        ICMP => packet.icmp(inside, more),
        TCP if !is_segment(inside) => packet.malformed("malformed_tcp"),
        UDP if !is_datagram(inside, more) => packet.malformed("malformed_udp"),
        TCP | UDP => packet.ports(more, flow),
        _ => passes(sent),
    }
}

/// RFC 9293 section 3.1: a header of 5 words or more, within the segment, and flags that a stack may send.
fn is_segment(inside: &[u8]) -> bool {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    if inside.len() < 20 {
        return false;
    }
    let (words, flags) = (usize::from(inside[12] >> 4), inside[13]);
    let contradicts = flags & SYN != 0 && flags & (FIN | RST) != 0;
    let says_nothing = flags & (SYN | FIN | RST | ACK) == 0;
    words >= 5 && words * 4 <= inside.len() && !contradicts && !says_nothing
}

/// RFC 768: a length of header and data, which a first fragment holds the beginning of.
fn is_datagram(inside: &[u8], more: bool) -> bool {
    inside.len() >= 8
        && two(inside, 4) >= 8
        && (more || usize::from(two(inside, 4)) <= inside.len())
}

/// An IPv4 packet in a frame.
struct Packet<'a> {
    sent: &'a [u8],
    /// Bytes of the IPv4 header.
    header: usize,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl<'a> Packet<'a> {
    fn of(sent: &'a [u8]) -> Self {
        let address = |at: usize| Ipv4Addr::new(sent[at], sent[at + 1], sent[at + 2], sent[at + 3]);
        Self {
            sent,
            header: usize::from(sent[14] & 15) * 4,
            protocol: sent[23],
            source: address(26),
            destination: address(30),
        }
    }

    fn pings(&self) -> bool {
        self.protocol == ICMP && vip(self.destination, None)
    }

    /// Where a service is meant, what contradicts itself drops; where its port can't be told, it may.
    fn malformed(&self, reason: &'static str) -> Vec<Answer> {
        let at = 14 + self.header.max(20) + 2;
        let to = SERVICES.iter().any(|(_, address, protocol, _)| {
            let address = socket(address);
            *protocol == self.protocol
                && *address.ip() == self.destination
                && self.sent.len() >= at + 2
                && two(self.sent, at) == address.port()
        });
        if to || self.pings() {
            drops(self.sent, reason)
        } else if vip(self.destination, Some(self.protocol)) {
            [drops(self.sent, reason), passes(self.sent)].concat()
        } else {
            passes(self.sent)
        }
    }

    /// RFC 1122 section 3.2.2.6: an echo request to the VIP is answered.
    fn icmp(&self, inside: &[u8], more: bool) -> Vec<Answer> {
        if !self.pings() {
            return passes(self.sent);
        }
        if inside.len() < 8 {
            return drops(self.sent, "malformed_icmp");
        }
        match inside[0] {
            3 | 4 | 5 | 11 | 12 => drops(self.sent, "icmp_error"),
            8 if more => drops(self.sent, "fragment"),
            8 if self.is_martian() => drops(self.sent, "martian_source"),
            8 => {
                let mut bytes = self.sent.to_vec();
                bytes[..6].copy_from_slice(&self.sent[6..12]);
                bytes[6..12].copy_from_slice(&self.sent[..6]);
                bytes[26..30].copy_from_slice(&self.destination.octets());
                bytes[30..34].copy_from_slice(&self.source.octets());
                bytes[22] = 64;
                adjust(
                    &mut bytes,
                    24,
                    &[(two(self.sent, 22), 64 << 8 | u16::from(ICMP))],
                );
                let at = 14 + self.header;
                bytes[at] = 0;
                let code = u16::from(inside[1]);
                adjust(&mut bytes, at + 2, &[(8 << 8 | code, code)]);
                let mut answers = vec![answer(3, "echo_reply", bytes)];
                if !self.is_to_us() {
                    answers.extend(passes(self.sent));
                }
                answers
            }
            _ => passes(self.sent),
        }
    }

    /// RFC 1122 section 3.2.1.3: an address that no host has.
    fn is_martian(&self) -> bool {
        matches!(self.source.octets()[0], 0 | 127 | 224..)
    }

    fn is_to_us(&self) -> bool {
        self.sent[..6] == OUR_MAC.0
    }

    /// A sound TCP or UDP packet with ports.
    fn ports(&self, more: bool, flow: Option<&Flow>) -> Vec<Answer> {
        let at = 14 + self.header;
        let source = SocketAddrV4::new(self.source, two(self.sent, at));
        let destination = SocketAddrV4::new(self.destination, two(self.sent, at + 2));
        let flow = flow.filter(|flow| (self.protocol == TCP) == flow.tcp);
        if let Some(flow) = flow {
            let backend = socket(flow.backend.1);
            let there = (source, destination) == (socket(CLIENT), socket(flow.service.1));
            let back = (source, destination) == (backend, socket(CLIENT));
            if there || back {
                return match (more, self.is_to_us()) {
                    (true, _) => drops(self.sent, "fragment"),
                    (_, false) => passes(self.sent),
                    _ if there => vec![self.sent_on(flow.service.0, flow.backend.0)],
                    _ => vec![self.answered(flow)],
                };
            }
        }
        let service = SERVICES.iter().find(|(_, address, protocol, _)| {
            *protocol == self.protocol && socket(address) == destination
        });
        let Some((row, _, _, backends)) = service else {
            return passes(self.sent);
        };
        match (more, self.is_martian(), self.is_to_us()) {
            (true, ..) => return drops(self.sent, "fragment"),
            (_, true, _) => return drops(self.sent, "martian_source"),
            (.., false) => return passes(self.sent),
            // It goes no further, so that there is nothing to choose a backend for.
            _ if self.sent[22] <= 1 => return vec![self.time_exceeded()],
            _ => {}
        }
        // The replies of one that has a flow with this client already would be taken for that flow's.
        let free = backends.iter().copied().filter(|number| {
            flow.is_none_or(|flow| flow.backend.0 != *number || source != socket(CLIENT))
        });
        let mut answers: Vec<_> = free
            .map(|number| {
                let made = Some((*row, usize::from(number)));
                Answer {
                    made,
                    ..self.sent_on(*row, number)
                }
            })
            .collect();
        if answers.is_empty() {
            let reason = if backends.is_empty() {
                "no_backend"
            } else {
                "reply_collision"
            };
            answers = drops(self.sent, reason);
        }
        answers
    }

    /// Towards a backend.
    fn sent_on(&self, service: usize, number: u8) -> Answer {
        let (action, verdict, from) = match number {
            1 => (3, "transmit", OUR_MAC),
            4 => return answer(1, "no_neighbour", self.sent.to_vec()),
            _ => (4, "redirect", OTHER_MAC),
        };
        if self.sent[22] <= 1 {
            return self.time_exceeded();
        }
        let mut bytes = self.sent.to_vec();
        self.rewrite(&mut bytes, 30, 2, socket(BACKENDS[usize::from(number) - 1]));
        bytes[..6].copy_from_slice(&backend_mac(number).0);
        bytes[6..12].copy_from_slice(&from.0);
        Answer {
            counted: Some((service, number.into(), false)),
            ..answer(action, verdict, bytes)
        }
    }

    /// Towards the client of a flow.
    fn answered(&self, flow: &Flow) -> Answer {
        if self.sent[22] <= 1 {
            return self.time_exceeded();
        }
        let mut bytes = self.sent.to_vec();
        self.rewrite(&mut bytes, 26, 0, socket(flow.service.1));
        bytes[..6].copy_from_slice(&lb_tests::frames::DEFAULT_SOURCE.0);
        bytes[6..12].copy_from_slice(&OUR_MAC.0);
        Answer {
            counted: Some((flow.service.0, flow.backend.0.into(), true)),
            ..answer(3, "transmit", bytes)
        }
    }

    /// Another address at `at` and port at `port` of the transport header, one hop less, and the checksums by RFC 1624.
    fn rewrite(&self, bytes: &mut [u8], at: usize, port: usize, to: SocketAddrV4) {
        let port = 14 + self.header + port;
        bytes[at..at + 4].copy_from_slice(&to.ip().octets());
        bytes[port..port + 2].copy_from_slice(&to.port().to_be_bytes());
        bytes[22] -= 1;
        let change = |at| (two(self.sent, at), two(bytes, at));
        let (high, low) = (change(at), change(at + 2));
        let (hop, port) = (change(22), change(port));
        adjust(bytes, 24, &[hop, high, low]);
        if self.protocol == TCP {
            adjust(bytes, 14 + self.header + 16, &[high, low, port]);
            return;
        }
        // RFC 768: no checksum stays none, and none is sent as it.
        let sum = 14 + self.header + 6;
        if two(bytes, sum) != 0 {
            adjust(bytes, sum, &[high, low, port]);
            if two(bytes, sum) == 0 {
                bytes[sum..sum + 2].fill(0xff);
            }
        }
    }

    /// RFC 792: the header and eight bytes of the packet, to who sent it.
    fn time_exceeded(&self) -> Answer {
        let quoted = &self.sent[14..14 + self.header + 8];
        let message = Icmp::new(Icmp::TIME_EXCEEDED, [0; 4], quoted);
        let mac = |at: usize| -> [u8; 6] { std::array::from_fn(|byte| self.sent[at + byte]) };
        let frame = Frame::icmp(OUR_ADDRESS, self.source, message)
            .ttl(64)
            .ip(|ip| {
                ip.identification = 0;
                ip.dont_fragment = false;
            })
            .source_mac(Mac(mac(0)))
            .destination_mac(Mac(mac(6)));
        answer(3, "time_exceeded", frame.bytes())
    }
}

fn two(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1624 equation 3: `HC' = ~(~HC + ~m + m')` for each word that changed.
fn adjust(bytes: &mut [u8], at: usize, words: &[(u16, u16)]) {
    let mut sum = !two(bytes, at);
    for (old, new) in words {
        sum = ones_complement_sum(sum, &(!old).to_be_bytes());
        sum = ones_complement_sum(sum, &new.to_be_bytes());
    }
    bytes[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

const fn answer(action: u32, verdict: &'static str, bytes: Vec<u8>) -> Answer {
    Answer {
        action,
        verdict,
        bytes,
        counted: None,
        made: None,
    }
}

fn passes(sent: &[u8]) -> Vec<Answer> {
    vec![answer(2, "pass", sent.to_vec())]
}

fn drops(sent: &[u8], reason: &'static str) -> Vec<Answer> {
    vec![answer(1, reason, sent.to_vec())]
}

fn either(sent: &[u8], drop: bool, reason: &'static str) -> Vec<Answer> {
    if drop {
        drops(sent, reason)
    } else {
        passes(sent)
    }
}
