//! Two CPUs at the flow table at once: makes packets, runs the data plane on them, and looks at each that leaves.
//!
//! One packet a round of `BPF_PROG_TEST_RUN`, by what [`Lane`] says, of which each CPU has one.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    frame::Frame,
    race_plan::{
        BACKEND_PORT, BACKENDS, CLIENT_PORT, FLOWS, Fault, Lane, Meeting, SERVICE_PORT, backend,
        backend_mac, client, client_mac, vip,
    },
    replay::under_test,
};

#[btf_map]
static LANE: PerCpuArray<Lane, 1> = PerCpuArray::new();
#[btf_map]
static MEETINGS: Array<Meeting, 2> = Array::new();

/// How often a CPU looks for the other before it gives the round up.
const PATIENCE: u32 = 256;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The balancer's MAC address on the interface that test runs come from.
const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const TTL: u8 = 64;
/// Bytes of the IPv4 header and of what is in it.
const IP_LENGTH: u16 = 40;
const TRANSPORT_LENGTH: u16 = 20;

/// A packet to be made.
#[derive(Clone, Copy)]
struct Packet {
    flow: u8,
    /// The client's.
    port: u16,
    /// 0 for a packet of the client, otherwise the backend that replies.
    from: u8,
    /// TCP flags.
    flags: u8,
    /// Which of the client's MAC addresses.
    mac: u8,
}

/// What became of it.
enum Fate {
    /// It left: the backend, of a client's packet.
    Left(u8),
    Dropped,
    Passed,
    Wrong(Fault, u64),
}

/// One round: one packet, or none where the other CPU does not come.
#[xdp]
fn race(context: XdpContext) -> u32 {
    let Some(lane) = LANE.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: this CPU's own row.
    let lane = unsafe { &mut *lane };
    let done = match lane.mode {
        Lane::PACE => pace(&context, lane),
        Lane::CROWD => crowd(&context, lane),
        _ => None,
    };
    match done {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}

/// A random packet of a random flow.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "bits of a random word")]
fn crowd(context: &XdpContext, lane: &mut Lane) -> Option<()> {
    lane.random = lane
        .random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    let random = (lane.random >> 32) as u32;
    let flow = random as u8 & (FLOWS - 1) as u8;
    let seen = lane.seen[flow as usize & (FLOWS - 1)];
    let draw = random >> 8 & 15;
    // A UDP flow that was answered would keep its place for the rest of the run.
    let replies = flow & 1 == 0 && draw >= 11 && seen != 0;
    let packet = Packet {
        flow,
        port: CLIENT_PORT,
        from: if replies { seen } else { 0 },
        flags: if draw < 4 {
            SYN
        } else if draw < 6 {
            RST
        } else {
            ACK
        },
        mac: u8::from((random >> 16).is_multiple_of(16)),
    };
    let to = run(context, lane, packet)?;
    if to != 0 && to != seen && !replies {
        lane.seen[flow as usize & (FLOWS - 1)] = to;
        lane.moves[flow as usize & (FLOWS - 1)] += 1;
    }
    Some(())
}

/// The next of three steps in the life of the next flow, once the other CPU is ready for it too.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn pace(context: &XdpContext, lane: &mut Lane) -> Option<()> {
    let (mine, other) = (
        MEETINGS.get_ptr_mut(lane.number & 1)?,
        MEETINGS.get_ptr_mut(lane.number & 1 ^ 1)?,
    );
    let step = lane.step;
    // SAFETY: words of rows just looked up; each CPU writes its own, in order, and reads the other's.
    unsafe { ptr::write_volatile(&raw mut (*mine).step, step) };
    if !is_there(other, step) {
        lane.waited += 1;
        return Some(());
    }
    let (round, phase) = (step / 3, step % 3);
    let flow = round as u8 & (FLOWS - 1) as u8;
    let turn = (round / FLOWS as u64) as u16;
    let first = lane.number == 0;
    let udp = flow & 1 == 1;
    let mut packet = Packet {
        flow,
        // For a while ports that come again soon: their entries are there still, and over.
        port: CLIENT_PORT
            + if turn & 64 == 0 {
                turn & 0x3fff
            } else {
                turn & 7
            },
        from: 0,
        flags: SYN,
        mac: 0,
    };
    // SAFETY: as above.
    let my_backend = unsafe { ptr::read_volatile(&raw const (*mine).backend) };
    if phase == 0 {
        let to = run(context, lane, packet)?;
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*mine).backend, to.into()) };
    } else if phase == 1 && my_backend != 0 {
        // SAFETY: as above.
        let its = unsafe { ptr::read_volatile(&raw const (*other).backend) };
        if its != 0 {
            lane.compared += 1;
            if its != my_backend {
                lane.fault(Fault::TwoBackends, flow, its);
            }
        }
        packet.flags = ACK;
        let replies = first && !udp;
        if replies {
            packet.from = my_backend as u8;
        }
        let passed = lane.passed;
        let to = run(context, lane, packet)?;
        if lane.passed != passed {
            lane.fault(Fault::HalfFlow, flow, my_backend);
        } else if to != 0 && u64::from(to) != my_backend {
            lane.fault(Fault::TwoBackends, flow, my_backend);
        }
    } else if phase == 2 && first && !udp {
        packet.flags = RST;
        run(context, lane, packet)?;
    }
    lane.step = step + 1;
    Some(())
}

/// Waits for the other CPU, not for long.
#[inline(always)]
fn is_there(other: *mut Meeting, step: u64) -> bool {
    for _ in 0..PATIENCE {
        // SAFETY: a word of a row that was just looked up; the other CPU writes it.
        if unsafe { ptr::read_volatile(&raw const (*other).step) } >= step {
            return true;
        }
    }
    false
}

/// Runs the data plane on a packet and counts what became of it; the backend that it left for or came from, 0 where it
/// stayed.
#[inline(always)]
fn run(context: &XdpContext, lane: &mut Lane, packet: Packet) -> Option<u8> {
    Frame::of(context)?.make(packet);
    let action = under_test(context.as_ptr());
    // The program may have moved the frame; its old bounds are void.
    let left = Frame::of(context)?;
    let reverse = packet.from != 0;
    let fate = match action {
        XDP_DROP => Fate::Dropped,
        XDP_PASS if reverse => Fate::Passed,
        XDP_TX if reverse => left.check_reply(packet),
        XDP_TX => left.check_request(packet),
        other => Fate::Wrong(Fault::Action, other.into()),
    };
    match fate {
        Fate::Left(to) => {
            let direction = if reverse {
                Lane::REVERSE
            } else {
                Lane::FORWARD
            };
            lane.sent[direction] += 1;
            return Some(to);
        }
        Fate::Dropped => lane.dropped += 1,
        Fate::Passed => lane.passed += 1,
        Fate::Wrong(fault, detail) => lane.fault(fault, packet.flow, detail),
    }
    Some(0)
}

impl Lane {
    #[inline(always)]
    fn fault(&mut self, fault: Fault, flow: u8, detail: u64) {
        if self.faults.iter().all(|count| *count == 0) {
            let at = if self.mode == Self::PACE {
                self.step
            } else {
                self.random
            };
            self.first = [fault as u64, flow.into(), detail, at];
        }
        self.faults[fault as usize & 15] += 1;
    }
}

const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// The parts of a MAC address as a frame's are read.
const fn parts(mac: [u8; 6]) -> (u32, u16) {
    (
        u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]),
        u16::from_ne_bytes([mac[4], mac[5]]),
    )
}

#[inline(always)]
const fn protocol(flow: u8) -> u8 {
    if flow & 1 == 1 { UDP } else { TCP }
}

impl Frame {
    /// Writes the packet, with checksums that are right.
    #[inline(always)]
    fn make(&self, packet: Packet) {
        let (flow, udp) = (packet.flow, packet.flow & 1 == 1);
        let (to, from) = if packet.from == 0 {
            (parts(OUR_MAC), parts(client_mac(flow, packet.mac)))
        } else {
            (parts(OUR_MAC), parts(backend_mac(flow, packet.from)))
        };
        self.put::<u32, 0>(to.0);
        self.put::<u16, 4>(to.1);
        self.put::<u32, 6>(from.0);
        self.put::<u16, 10>(from.1);
        self.put::<u16, 12>(0x0800u16.to_be());
        self.put::<u16, 14>(0x4500u16.to_be());
        self.put::<u16, 16>(IP_LENGTH.to_be());
        self.put::<u32, 18>(0);
        self.put::<u16, 22>(u16::from_ne_bytes([TTL, protocol(flow)]));
        self.put::<u16, 24>(0);
        let client = (word(client(flow)), packet.port.to_be());
        let (source, destination) = if packet.from == 0 {
            (client, (word(vip(flow)), SERVICE_PORT.to_be()))
        } else {
            let port = BACKEND_PORT + u16::from(packet.from);
            ((word(backend(flow, packet.from)), port.to_be()), client)
        };
        self.put::<u32, 26>(source.0);
        self.put::<u32, 30>(destination.0);
        self.put::<u16, 34>(source.1);
        self.put::<u16, 36>(destination.1);
        self.put::<u32, 38>(0);
        self.put::<u32, 42>(0);
        self.put::<u32, 46>(0);
        self.put::<u32, 50>(0);
        if udp {
            self.put::<u16, 38>(TRANSPORT_LENGTH.to_be());
            self.put::<u16, 40>(!self.transport_sum(flow));
        } else {
            self.put::<u16, 46>(u16::from_ne_bytes([5 << 4, packet.flags]));
            self.put::<u16, 50>(!self.transport_sum(flow));
        }
        self.put::<u16, 24>(!self.ip_sum());
    }

    /// A client's packet as it left.
    #[inline(always)]
    fn check_request(&self, packet: Packet) -> Fate {
        let flow = packet.flow;
        let [a, b, c, number] = self.get::<u32, 30>().to_ne_bytes();
        if [a, b, c, 0] != backend(flow, 0) || number == 0 || number > BACKENDS {
            return Fate::Wrong(Fault::ForeignBackend, self.get::<u32, 30>().into());
        }
        if self.get::<u16, 36>() != (BACKEND_PORT + u16::from(number)).to_be() {
            return Fate::Wrong(Fault::Port, self.get::<u16, 36>().into());
        }
        if (self.get::<u32, 0>(), self.get::<u16, 4>()) != parts(backend_mac(flow, number)) {
            return Fate::Wrong(Fault::Mac, self.get::<u16, 4>().into());
        }
        let from = (self.get::<u32, 26>(), self.get::<u16, 34>());
        self.check_rest(packet, number, from)
    }

    /// A reply as it left.
    #[inline(always)]
    fn check_reply(&self, packet: Packet) -> Fate {
        let flow = packet.flow;
        if self.get::<u32, 26>() != word(vip(flow)) {
            return Fate::Wrong(Fault::ForeignClient, self.get::<u32, 26>().into());
        }
        if self.get::<u16, 34>() != SERVICE_PORT.to_be() {
            return Fate::Wrong(Fault::Port, self.get::<u16, 34>().into());
        }
        let [own, which] = self.get::<u16, 4>().to_ne_bytes();
        if (self.get::<u32, 0>(), own) != (parts(client_mac(flow, 0)).0, flow) || which > 1 {
            return Fate::Wrong(Fault::Mac, self.get::<u16, 4>().into());
        }
        let to = (self.get::<u32, 30>(), self.get::<u16, 36>());
        self.check_rest(packet, packet.from, to)
    }

    /// The client's address and port, the TTL and the checksums.
    #[inline(always)]
    fn check_rest(&self, packet: Packet, number: u8, kept: (u32, u16)) -> Fate {
        let ttl = u16::from_ne_bytes([TTL - 1, protocol(packet.flow)]);
        if kept != (word(client(packet.flow)), packet.port.to_be()) || self.get::<u16, 22>() != ttl
        {
            return Fate::Wrong(Fault::Rest, kept.0.into());
        }
        if self.ip_sum() != 0xffff {
            return Fate::Wrong(Fault::IpChecksum, number.into());
        }
        if self.transport_sum(packet.flow) != 0xffff {
            return Fate::Wrong(Fault::TransportChecksum, number.into());
        }
        Fate::Left(number)
    }

    #[inline(always)]
    fn ip_sum(&self) -> u16 {
        fold(
            u64::from(self.get::<u32, 14>())
                + u64::from(self.get::<u32, 18>())
                + u64::from(self.get::<u32, 22>())
                + u64::from(self.get::<u32, 26>())
                + u64::from(self.get::<u32, 30>()),
        )
    }

    /// With the pseudo header.
    #[inline(always)]
    fn transport_sum(&self, flow: u8) -> u16 {
        fold(
            u64::from(self.get::<u32, 26>())
                + u64::from(self.get::<u32, 30>())
                + u64::from(u16::from(protocol(flow)).to_be())
                + u64::from(TRANSPORT_LENGTH.to_be())
                + u64::from(self.get::<u32, 34>())
                + u64::from(self.get::<u32, 38>())
                + u64::from(self.get::<u32, 42>())
                + u64::from(self.get::<u32, 46>())
                + u64::from(self.get::<u32, 50>()),
        )
    }
}

/// Folds a sum of 32-bit words to the sum of their halves in one's complement.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
