//! Every state with every packet, against the story of a connection as RFC 9293 tells it.

use network_types::ip::IpProto;

use super::{State::*, *};

const STATES: [State; 9] = [
    HalfOpen,
    Answered,
    Established,
    ClosingByClient,
    ClosingByBackend,
    Closed,
    Unconfirmed,
    Unanswered,
    Reset,
];
const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;

#[test]
fn bytes_are_states_and_others_are_closed() {
    for (state, byte) in STATES.into_iter().zip([1, 2, 3, 4, 5, 6, 7, 8, 9]) {
        assert_eq!(state as u8, byte);
        assert_eq!(State::from_byte(byte), state);
    }
    for byte in [0].into_iter().chain(10..=u8::MAX) {
        assert_eq!(State::from_byte(byte), Closed);
    }
}

/// What the first end to send a FIN makes of a state, or the second.
fn after_fin(state: State, by_client: bool) -> State {
    match (state, by_client) {
        (Closed, _) | (ClosingByBackend, true) | (ClosingByClient, false) => Closed,
        (Reset, true) => Reset,
        (_, true) => ClosingByClient,
        (_, false) => ClosingByBackend,
    }
}

/// What a packet without a flag that ends anything makes of a state.
fn after_data(state: State, by_client: bool) -> State {
    match (state, by_client) {
        (HalfOpen, false) => Answered,
        (Answered, true) | (Unconfirmed | Unanswered | Reset, false) => Established,
        _ => state,
    }
}

#[test]
fn every_packet_leads_to_one_state() {
    for state in STATES {
        for byte in 0..=u8::MAX {
            let flags = TcpFlags(byte);
            for (direction, by_client) in [(Direction::Forward, true), (Direction::Reverse, false)]
            {
                let expected = if flags.any(TcpFlags::RST) {
                    Reset
                } else if flags.any(TcpFlags::FIN) {
                    after_fin(state, by_client)
                } else {
                    after_data(state, by_client)
                };
                let seen = state.after(direction, flags);
                assert_eq!(seen, expected, "{state:?} {direction:?} {byte:#x}");
            }
            let quiet = byte & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) == 0;
            let settled = state == Established && quiet;
            assert_eq!(State::is_settled(state as u8, flags), settled);
        }
    }
}

#[test]
fn the_first_packet_says_what_is_known() {
    for byte in 0..=u8::MAX {
        let flags = TcpFlags(byte);
        assert_eq!(State::first(UDP, flags), Unanswered);
        let [syn, rst, ack] = [1, 2, 4].map(|bit| byte >> bit & 1 == 1);
        let expected = match (syn && !ack, rst) {
            (true, _) => HalfOpen,
            (false, true) => Reset,
            (false, false) => Unconfirmed,
        };
        assert_eq!(State::first(TCP, flags), expected, "{byte:#x}");
    }
}

#[test]
fn closed_and_reset_alone_are_over_at_once() {
    for state in STATES {
        assert_eq!(state.ends(), matches!(state, Closed | Reset), "{state:?}");
    }
}

#[test]
fn every_state_has_its_idle_time() {
    for state in STATES {
        let tcp = match state {
            Established => 7_440,
            ClosingByClient | ClosingByBackend => 120,
            _ => 30,
        };
        let udp = if state == Established { 300 } else { 30 };
        assert_eq!(idle_timeout_seconds(state as u8, TCP), tcp, "{state:?}");
        assert_eq!(idle_timeout_seconds(state as u8, UDP), udp, "{state:?}");
    }
    assert_eq!((is_udp(TCP), is_udp(UDP)), (0, 1));
}

#[test]
fn an_age_is_what_has_passed_and_nothing_for_what_is_just_ahead() {
    for now in [0, 1, 5, 1 << 20, 1 << 31, u32::MAX - 1, u32::MAX] {
        let clock = Clock {
            now,
            ticks_per_second: 250,
        };
        for passed in [
            0,
            1,
            2,
            250,
            1 << 20,
            1 << 30,
            1 << 31,
            u32::MAX - (1 << 20),
        ] {
            assert_eq!(clock.age(now.wrapping_sub(passed)), passed, "{now}");
        }
        for ahead in [1, 2, 1_000, 1 << 20] {
            assert_eq!(clock.age(now.wrapping_add(ahead)), 0, "{now}");
        }
        assert_eq!(clock.seconds(30), 7_500);
        assert_eq!(clock.seconds(u32::MAX), u32::MAX);
    }
}

#[test]
fn each_direction_names_the_other() {
    let [client, vip, backend] =
        ["198.51.100.7:40000", "192.0.2.10:80", "10.2.0.11:8080"].map(|text| text.parse().unwrap());
    let recipe = |to: core::net::SocketAddrV4, reverse| Recipe {
        rest: reverse,
        rewrite: u64::from(u32::from_ne_bytes(to.ip().octets()))
            | u64::from(to.port().to_be()) << 32,
        ..Recipe::default()
    };
    let there = FlowKey::new(client, vip, TCP);
    let back = FlowKey::new(backend, client, TCP);
    assert_eq!(partner(&there, &recipe(backend, 0)), back);
    let reverse = recipe(vip, crate::abi::meta::REVERSE);
    assert_eq!(partner(&back, &reverse), there);
}
