//! The life of a flow: which state a packet leads to, which flows count as alive, and when an idle one is over.
//!
//! The states follow what both ends have shown, so that made-up packets of one end protect nothing. Time is the low
//! 32 bits of `jiffies64`, which wrap: ages are wrapping differences.

use network_types::ip::IpProto;

use crate::{
    abi::{FlowEntry, FlowKey},
    parse::TcpFlags,
};

/// What is known of a flow. Both of its entries carry the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// TCP: the client's SYN was seen.
    HalfOpen = 1,
    /// TCP: the backend answered the SYN.
    Answered = 2,
    /// TCP: the client answered in turn. UDP: the backend answered.
    Established = 3,
    /// TCP: the client sent FIN.
    ClosingByClient = 4,
    /// TCP: the backend sent FIN.
    ClosingByBackend = 5,
    /// TCP: both sent FIN, or one sent RST.
    Closed = 6,
    /// TCP: found in the middle, the backend has not been heard.
    Unconfirmed = 7,
    /// UDP: the backend has not been heard.
    Unanswered = 8,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to backend.
    Forward,
    /// Backend to client.
    Reverse,
}

/// Idle times in seconds after which a flow is over.
mod timeout {
    /// Waiting for the other end.
    pub(super) const OPENING: u32 = 30;
    /// RFC 5382 REQ-5: not below 2 hours 4 minutes.
    pub(super) const TCP_ESTABLISHED: u32 = 7_440;
    /// One end may go on sending after the other's FIN.
    pub(super) const CLOSING: u32 = 120;
    /// Stray retransmissions.
    pub(super) const CLOSED: u32 = 10;
    /// RFC 4787 REQ-5: 5 minutes recommended.
    pub(super) const UDP_ESTABLISHED: u32 = 300;
}

impl State {
    /// The state that an entry holds; an unknown byte reads as closed.
    #[must_use]
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::HalfOpen,
            2 => Self::Answered,
            3 => Self::Established,
            4 => Self::ClosingByClient,
            5 => Self::ClosingByBackend,
            7 => Self::Unconfirmed,
            8 => Self::Unanswered,
            _ => Self::Closed,
        }
    }

    /// The state of a flow after its first packet.
    #[must_use]
    #[inline(always)]
    pub const fn first(protocol: u32, flags: TcpFlags) -> Self {
        if protocol == IpProto::Udp as u32 {
            Self::Unanswered
        } else if flags.opens() {
            Self::HalfOpen
        } else if flags.any(TcpFlags::RST) {
            Self::Closed
        } else {
            Self::Unconfirmed
        }
    }

    /// Whether a packet with these flags can leave the state as it is without a closer look.
    #[must_use]
    #[inline(always)]
    pub const fn is_settled(byte: u8, flags: TcpFlags) -> bool {
        byte == Self::Established as u8 && !flags.any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
    }

    /// The state after a packet. `flags` are zero for UDP.
    #[must_use]
    #[inline(always)]
    pub const fn after(self, direction: Direction, flags: TcpFlags) -> Self {
        if flags.any(TcpFlags::RST) {
            return Self::Closed;
        }
        let fin = flags.any(TcpFlags::FIN);
        match (self, direction) {
            (Self::Closed, _) => Self::Closed,
            (Self::ClosingByClient, Direction::Reverse)
            | (Self::ClosingByBackend, Direction::Forward)
                if fin =>
            {
                Self::Closed
            }
            (Self::ClosingByClient | Self::ClosingByBackend, _) => self,
            (_, Direction::Forward) if fin => Self::ClosingByClient,
            (_, Direction::Reverse) if fin => Self::ClosingByBackend,
            (Self::HalfOpen, Direction::Reverse) => Self::Answered,
            (Self::Unconfirmed | Self::Unanswered, Direction::Reverse)
            | (Self::Answered, Direction::Forward) => Self::Established,
            _ => self,
        }
    }

    /// Whether a client's new SYN begins another connection, which is scheduled anew.
    ///
    /// A SYN in any other state may be a retransmission or a forgery; the backend knows (RFC 9293 section 3.10.7.4).
    #[must_use]
    #[inline(always)]
    pub const fn yields_to_syn(self) -> bool {
        matches!(
            self,
            Self::Closed | Self::ClosingByClient | Self::ClosingByBackend
        )
    }

    /// Seconds without a packet after which the flow is over.
    #[must_use]
    #[inline(always)]
    pub const fn idle_timeout_seconds(self, protocol: u32) -> u32 {
        match self {
            Self::HalfOpen | Self::Answered | Self::Unconfirmed | Self::Unanswered => {
                timeout::OPENING
            }
            Self::Established if protocol == IpProto::Udp as u32 => timeout::UDP_ESTABLISHED,
            Self::Established => timeout::TCP_ESTABLISHED,
            Self::ClosingByClient | Self::ClosingByBackend => timeout::CLOSING,
            Self::Closed => timeout::CLOSED,
        }
    }
}

/// Ticks since the entry was last used; 0 where another CPU used it "later" than `now`.
#[must_use]
#[inline(always)]
pub const fn age_ticks(now: u32, last_seen: u32) -> u32 {
    let age = now.wrapping_sub(last_seen);
    if age.cast_signed() < 0 { 0 } else { age }
}

/// Whether an entry of that protocol has been idle for longer than its state allows.
#[must_use]
#[inline(always)]
pub const fn is_expired(entry: &FlowEntry, protocol: u32, now: u32, ticks_per_second: u32) -> bool {
    let seconds = State::from_byte(entry.state).idle_timeout_seconds(protocol);
    age_ticks(now, entry.last_seen) > seconds.saturating_mul(ticks_per_second)
}

/// Whether an operator would call the flow active: neither closed nor idle past its time.
#[must_use]
#[inline(always)]
pub const fn is_active(entry: &FlowEntry, protocol: u32, now: u32, ticks_per_second: u32) -> bool {
    !matches!(State::from_byte(entry.state), State::Closed)
        && !is_expired(entry, protocol, now, ticks_per_second)
}

/// Key of the entry that rewrites the other direction.
#[must_use]
#[inline(always)]
pub const fn partner(key: &FlowKey, entry: &FlowEntry) -> FlowKey {
    if entry.is_reverse() {
        FlowKey {
            source: key.destination,
            destination: entry.address,
            source_port: key.destination_port,
            destination_port: entry.port,
            protocol: key.protocol,
        }
    } else {
        FlowKey {
            source: entry.address,
            destination: key.source,
            source_port: entry.port,
            destination_port: key.source_port,
            protocol: key.protocol,
        }
    }
}

/// Hash of a 5-tuple, even over 32 bits: two multiplications joined, folded and mixed once more.
#[must_use]
#[inline(always)]
pub const fn hash(key: &FlowKey) -> u32 {
    let addresses = key.source as u64 | (key.destination as u64) << 32;
    let rest =
        key.source_port as u64 | (key.destination_port as u64) << 16 | (key.protocol as u64) << 32;
    let mut mixed =
        addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rest.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    mixed ^= mixed >> 32;
    (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddrV4};

    use proptest::prelude::*;

    use super::{Direction::*, State::*, *};

    const TCP: u32 = IpProto::Tcp as u32;
    const UDP: u32 = IpProto::Udp as u32;

    fn walk(mut state: State, packets: &[(Direction, u8)]) -> State {
        for (direction, flags) in packets {
            state = state.after(*direction, TcpFlags(*flags));
        }
        state
    }

    #[test]
    fn a_handshake_establishes_and_two_fins_close() {
        let syn = State::first(TCP, TcpFlags(TcpFlags::SYN));
        assert_eq!(syn, HalfOpen);
        let open = walk(
            syn,
            &[
                (Reverse, TcpFlags::SYN | TcpFlags::ACK),
                (Forward, TcpFlags::ACK),
            ],
        );
        assert_eq!(open, Established);
        let half = walk(
            open,
            &[
                (Reverse, TcpFlags::FIN | TcpFlags::ACK),
                (Forward, TcpFlags::ACK),
            ],
        );
        assert_eq!(half, ClosingByBackend);
        assert_eq!(
            walk(half, &[(Forward, TcpFlags::FIN | TcpFlags::ACK)]),
            Closed
        );
        assert_eq!(walk(Closed, &[(Reverse, TcpFlags::ACK)]), Closed);
    }

    #[test]
    fn a_client_alone_never_establishes() {
        for first in [HalfOpen, Unconfirmed] {
            assert_eq!(walk(first, &[(Forward, TcpFlags::ACK); 5]), first);
        }
        assert_eq!(walk(Unanswered, &[(Forward, 0); 5]), Unanswered);
        assert_eq!(walk(Unanswered, &[(Reverse, 0)]), Established);
    }

    #[test]
    fn a_repeated_fin_of_one_end_does_not_close() {
        let fin = TcpFlags::FIN | TcpFlags::ACK;
        assert_eq!(
            walk(Established, &[(Forward, fin), (Forward, fin)]),
            ClosingByClient
        );
        assert_eq!(
            walk(Established, &[(Reverse, fin), (Reverse, fin)]),
            ClosingByBackend
        );
    }

    #[test]
    fn a_repeated_syn_keeps_its_backend_until_the_connection_closes() {
        for state in [HalfOpen, Answered, Established, Unconfirmed] {
            assert!(!state.yields_to_syn(), "{state:?}");
        }
        for state in [ClosingByClient, ClosingByBackend, Closed] {
            assert!(state.yields_to_syn(), "{state:?}");
        }
    }

    #[test]
    fn ages_wrap_with_jiffies() {
        assert_eq!(age_ticks(5, u32::MAX - 4), 10);
        assert_eq!(age_ticks(5, 6), 0);
        let entry = FlowEntry {
            state: HalfOpen as u8,
            last_seen: u32::MAX - 100,
            ..FlowEntry::default()
        };
        assert!(!is_expired(&entry, TCP, 1_000, 250));
        assert!(is_expired(&entry, TCP, 30 * 250, 250));
        assert!(!is_active(&entry, TCP, 30 * 250, 250));
    }

    #[test]
    fn udp_and_tcp_have_idle_times_of_their_own() {
        assert!(Established.idle_timeout_seconds(UDP) < Established.idle_timeout_seconds(TCP));
    }

    #[test]
    fn hashes_spread_over_slots() {
        let mut counts = [0u32; 16];
        for port in 0..16_000u16 {
            let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port);
            let vip = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
            let key = FlowKey::new(client, vip, IpProto::Tcp as u8);
            counts[crate::schedule::by_hash(hash(&key), 16) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1_150).contains(count)),
            "{counts:?}"
        );
    }

    proptest! {
        #[test]
        fn bytes_read_back_as_their_state(byte in any::<u8>()) {
            let state = State::from_byte(byte);
            prop_assert!(state as u8 == byte || state == Closed);
        }

        #[test]
        fn partners_name_each_other(
            client in any::<u32>(), vip in any::<u32>(), backend in any::<u32>(), ports in any::<[u16; 3]>(),
        ) {
            let [client_port, vip_port, backend_port] = ports;
            let key = FlowKey {
                source: client, destination: vip, source_port: client_port, destination_port: vip_port,
                protocol: TCP,
            };
            let forward = FlowEntry { address: backend, port: backend_port, ..FlowEntry::default() };
            let reverse = FlowEntry {
                address: vip, port: vip_port, flags: FlowEntry::REVERSE, ..FlowEntry::default()
            };
            let there = partner(&key, &forward);
            prop_assert_eq!(partner(&there, &reverse), key);
        }
    }
}
