//! The life of a flow: which state a packet leads to, which flows count as alive, and when an idle one is over.
//!
//! The states follow what both ends have shown, so that made-up packets of one end protect nothing. Time is the low
//! 32 bits of `jiffies64`, which wrap: ages are wrapping differences.

use core::hint::black_box;

use network_types::ip::IpProto;

use crate::{
    abi::{FlowKey, Recipe},
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
    /// TCP: both sent FIN.
    Closed = 6,
    /// TCP: found in the middle, the backend has not been heard.
    Unconfirmed = 7,
    /// UDP: the backend has not been heard.
    Unanswered = 8,
    /// TCP: one sent RST. It may have been forged or refused (RFC 5961), and a backend that goes on lifts the state again.
    Reset = 9,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to backend.
    Forward,
    /// Backend to client.
    Reverse,
}

/// Idle times after which a flow is over: four of them in seconds, 16 bits each, and for each state which, four bits each.
///
/// In words and not in a `match`, which the verifier would walk for each entry of a bucket.
mod idle {
    use super::State;

    /// To hear the other end, and for stray retransmissions after the close.
    const SHORT: u64 = 0;
    /// For one end to finish after the other's FIN.
    const CLOSING: u64 = 1;
    /// RFC 4787 REQ-5.
    const UDP_ESTABLISHED: u64 = 2;
    /// RFC 5382 REQ-5: not below 2 hours 4 minutes.
    const TCP_ESTABLISHED: u64 = 3;

    pub(super) const SECONDS: u64 = 30 + (120 << 16) + (300 << 32) + (7_440 << 48);
    pub(super) const TCP: u64 = CLOSE | of(State::Established, TCP_ESTABLISHED);
    pub(super) const UDP: u64 =
        of(State::Unanswered, SHORT) | of(State::Established, UDP_ESTABLISHED);

    const CLOSE: u64 = of(State::ClosingByClient, CLOSING) | of(State::ClosingByBackend, CLOSING);

    const fn of(state: State, which: u64) -> u64 {
        which << (4 * state as u8)
    }
}

/// 1 for UDP, 0 for TCP, without a branch: 6 is 0b00110 and 17 is 0b10001.
#[must_use]
#[inline(always)]
pub fn is_udp(protocol: u8) -> u64 {
    black_box(u64::from(protocol & 1))
}

/// Seconds without a packet after which a flow in that state is over; `state` is the byte of an entry.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "16 bits")]
pub fn idle_timeout_seconds(state: u8, protocol: u8) -> u32 {
    let table = idle::TCP ^ ((idle::TCP ^ idle::UDP) * is_udp(protocol));
    let which = table >> (4 * (state & 15)) & 15;
    u32::from((idle::SECONDS >> (16 * which)) as u16)
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
            9 => Self::Reset,
            _ => Self::Closed,
        }
    }

    /// Whether a flow in that state is over, however lately it was used.
    #[must_use]
    #[inline(always)]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// The state of a flow after its first packet.
    #[must_use]
    #[inline(always)]
    pub const fn first(protocol: u8, flags: TcpFlags) -> Self {
        if protocol == IpProto::Udp as u8 {
            Self::Unanswered
        } else if flags.opens() {
            Self::HalfOpen
        } else if flags.any(TcpFlags::RST) {
            Self::Reset
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
            return Self::Reset;
        }
        let fin = flags.any(TcpFlags::FIN);
        match (self, direction) {
            (Self::Closed, _) => Self::Closed,
            (Self::Reset, Direction::Forward) => Self::Reset,
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
            (Self::Unconfirmed | Self::Unanswered | Self::Reset, Direction::Reverse)
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
            Self::Closed | Self::Reset | Self::ClosingByClient | Self::ClosingByBackend
        )
    }
}

/// A silence after which the age of an established flow is looked at: not above its shortest idle time, that of UDP, at 100 ticks a
/// second and above.
pub const LONG_SILENCE_TICKS: u32 = 30_000;

/// Ticks by which another CPU's clock may be ahead.
const JUST_LATER: u32 = 1 << 20;

/// The time as the kernel program sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Low 32 bits of `jiffies64`.
    pub now: u32,
    /// Ticks a second.
    pub ticks_per_second: u32,
}

impl Clock {
    /// Ticks since `last_seen`; 0 where another CPU has been there "later" than now.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits, or 0")]
    pub fn age(&self, last_seen: u32) -> u32 {
        let age = self.now.wrapping_sub(last_seen);
        // 1 for an age that lies just below zero. By arithmetic, for the verifier's sake; anything further back than
        // that is old, however often the ticks have wrapped.
        let later = black_box((u64::from(age) + u64::from(JUST_LATER)) >> 32);
        (u64::from(age) * (1 - later)) as u32
    }

    /// Ticks of that many seconds.
    #[must_use]
    #[inline(always)]
    pub const fn seconds(&self, seconds: u32) -> u32 {
        seconds.saturating_mul(self.ticks_per_second)
    }
}

/// Whether a flow of that protocol has been idle for longer than its state allows, by the recipe of one direction: a flow is as old as
/// the younger of its two entries ([`crate::table::is_expired`]).
#[must_use]
#[inline(always)]
pub fn is_expired(recipe: &Recipe, protocol: u8, clock: &Clock) -> bool {
    clock.age(recipe.last_seen()) > clock.seconds(idle_timeout_seconds(recipe.state(), protocol))
}

/// Whether a flow is closed, or idle past its time; an operator calls any other active.
#[must_use]
#[inline(always)]
pub fn is_over(recipe: &Recipe, protocol: u8, clock: &Clock) -> bool {
    State::from_byte(recipe.state()).ends() || is_expired(recipe, protocol, clock)
}

/// Key of the entry that rewrites the other direction.
#[must_use]
#[inline(always)]
pub const fn partner(key: &FlowKey, recipe: &Recipe) -> FlowKey {
    if recipe.is_reverse() {
        FlowKey::from_words(
            key.destination_word(),
            recipe.address(),
            (key.destination_port(), recipe.port()),
            key.protocol(),
        )
    } else {
        FlowKey::from_words(
            recipe.address(),
            key.source_word(),
            (recipe.port(), key.source_port()),
            key.protocol(),
        )
    }
}

#[cfg(test)]
mod every_state;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Direction::*, State::*, *};

    const TCP: u8 = IpProto::Tcp as u8;
    const UDP: u8 = IpProto::Udp as u8;

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
    fn a_reset_is_lifted_by_a_backend_that_goes_on() {
        for direction in [Forward, Reverse] {
            let reset = walk(Established, &[(direction, TcpFlags::RST)]);
            assert_eq!(reset, Reset);
            assert_eq!(walk(reset, &[(Forward, TcpFlags::ACK)]), Reset);
            assert_eq!(walk(reset, &[(Reverse, TcpFlags::ACK)]), Established);
        }
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
        for state in [ClosingByClient, ClosingByBackend, Closed, Reset] {
            assert!(state.yields_to_syn(), "{state:?}");
        }
    }

    #[test]
    fn ages_wrap_with_jiffies() {
        let clock = |now| Clock {
            now,
            ticks_per_second: 250,
        };
        assert_eq!(clock(5).age(u32::MAX - 4), 10);
        assert_eq!(clock(5).age(6), 0);
        assert_eq!(
            clock(5).age(5 + (1 << 31)),
            1 << 31,
            "older than half the range is old, not young"
        );
        let recipe = Recipe {
            rest: (HalfOpen as u64) << crate::abi::meta::STATE,
            service: u64::from(u32::MAX - 100) << 32,
            ..Recipe::default()
        };
        assert!(!is_over(&recipe, TCP, &clock(1_000)));
        assert!(is_over(&recipe, TCP, &clock(31 * 250)));
    }

    #[test]
    fn udp_and_tcp_have_idle_times_of_their_own() {
        assert_eq!(idle_timeout_seconds(Established as u8, UDP), 300);
        assert_eq!(idle_timeout_seconds(Established as u8, TCP), 7_440);
        assert_eq!(idle_timeout_seconds(HalfOpen as u8, TCP), 30);
        assert_eq!(idle_timeout_seconds(ClosingByClient as u8, TCP), 120);
        assert_eq!(idle_timeout_seconds(Unanswered as u8, UDP), 30);
    }

    proptest! {
        #[test]
        fn bytes_read_back_as_their_state(byte in any::<u8>()) {
            let state = State::from_byte(byte);
            prop_assert!(state as u8 == byte || state == Closed);
        }
    }
}
