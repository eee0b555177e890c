//! Whom a new flow evicts from a full table, and whom never.

use lb_common::{abi::FlowKey, table::Event};
use lb_tests::{
    frames::{Frame, TcpFlags},
    program::{Program, TICKS_PER_SECOND},
};

use crate::{ACK, FIN, SYN_ACK, world::*};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A client by its port.
fn client(port: u16) -> String {
    format!("198.51.100.7:{port}")
}

/// The 5-tuple of that client's packets.
fn key(port: u16, protocol: u8) -> FlowKey {
    let service = if protocol == UDP { DNS } else { WEB };
    FlowKey::new(socket(&client(port)), socket(service), protocol)
}

/// The address of the backend that the client's flow has, if it has one.
fn backend(program: &mut Program, port: u16, protocol: u8) -> Option<String> {
    let key = key(port, protocol);
    let entries = program.entries().unwrap();
    let held = entries.iter().find(|held| held.key == key)?;
    Some(held.recipe.rewritten().to_string())
}

/// Ports of the clients that have a TCP flow.
fn ports(program: &mut Program) -> Vec<u16> {
    let entries = program.entries().unwrap();
    let forward = entries.iter().filter(|held| !held.recipe.is_reverse());
    let mut ports: Vec<_> = forward.map(|held| held.key.source().port()).collect();
    ports.sort_unstable();
    ports
}

fn open(program: &mut Program, port: u16) {
    program.run(&syn(&client(port), WEB)).unwrap();
}

/// A client's handshake, as far as both ends go.
fn establish(program: &mut Program, port: u16) -> String {
    open(program, port);
    let backend = backend(program, port, TCP).unwrap();
    let client = client(port);
    let answer = Frame::tcp(backend.as_str(), client.as_str()).flags(SYN_ACK);
    program.run(&answer).unwrap();
    program
        .run(&Frame::tcp(client.as_str(), WEB).flags(ACK))
        .unwrap();
    backend
}

fn ask(program: &mut Program, port: u16) {
    program
        .run(&Frame::udp(client(port).as_str(), DNS))
        .unwrap();
}

fn age(program: &mut Program, port: u16, protocol: u8, seconds: u32) {
    program
        .age_flow(&key(port, protocol), seconds * TICKS_PER_SECOND)
        .unwrap();
}

#[test]
fn victims_go_in_the_order_of_what_their_flows_have_shown() {
    // Room for four flows, whatever their 5-tuples.
    let mut program = world_of(8);
    establish(&mut program, 1);
    open(&mut program, 2);
    ask(&mut program, 3);
    open(&mut program, 4);
    let reset = Frame::tcp(client(4).as_str(), WEB).flags(TcpFlags::RST);
    program.run(&reset).unwrap();
    age(&mut program, 1, TCP, 3_600);
    age(&mut program, 2, TCP, 25);
    age(&mut program, 3, UDP, 5);
    for (new, event, left) in [
        (5, Event::EvictedOver, [1, 2, 3, 5]),
        (6, Event::EvictedUnanswered, [1, 2, 5, 6]),
        (7, Event::EvictedHalfOpen, [1, 5, 6, 7]),
        (8, Event::Overflow, [1, 5, 6, 7]),
    ] {
        let before = program.events(event);
        open(&mut program, new);
        assert!(program.events(event) > before, "{event:?}");
        assert_eq!(ports(&mut program), left, "{event:?}");
        assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn an_empty_place_is_taken_before_any_flow_goes() {
    let mut program = world_of(8);
    for port in 1..4 {
        ask(&mut program, port);
        age(&mut program, port, UDP, 29);
    }
    open(&mut program, 4);
    assert_eq!(ports(&mut program), [1, 2, 3, 4]);
}

#[test]
fn the_oldest_half_open_connection_goes_first_and_none_younger_than_three_seconds() {
    let mut program = world_of(8);
    for (port, seconds) in [(1, 4), (2, 9), (3, 2), (4, 6)] {
        open(&mut program, port);
        age(&mut program, port, TCP, seconds);
    }
    for (new, left) in [
        (5, [1, 3, 4, 5]),
        (6, [1, 3, 5, 6]),
        (7, [3, 5, 6, 7]),
        (8, [3, 5, 6, 7]),
    ] {
        open(&mut program, new);
        assert_eq!(ports(&mut program), left);
    }
    assert_eq!(program.events(Event::Overflow), 1);
    age(&mut program, 3, TCP, 2);
    open(&mut program, 9);
    assert_eq!(ports(&mut program), [5, 6, 7, 9], "it is four seconds old");
}

#[test]
fn a_client_that_acknowledges_what_nobody_sent_protects_nothing() {
    let mut program = world_of(8);
    for port in 1..5 {
        if port % 2 == 0 {
            open(&mut program, port);
        }
        for flags in [ACK, ACK, TcpFlags(TcpFlags::PSH.0 | TcpFlags::ACK.0), ACK] {
            let made_up = Frame::tcp(client(port).as_str(), WEB).flags(flags);
            program.run(&made_up).unwrap();
        }
    }
    assert_eq!(ports(&mut program), [1, 2, 3, 4]);
    program.age_flows(4 * TICKS_PER_SECOND).unwrap();
    for port in 5..9 {
        open(&mut program, port);
    }
    assert_eq!(ports(&mut program), [5, 6, 7, 8]);
}

#[test]
fn an_answered_udp_flow_goes_after_its_protected_seconds_and_no_sooner() {
    let mut program = world_of(8);
    for port in 1..5 {
        ask(&mut program, port);
        let answer = Frame::udp(BACKEND_3, client(port).as_str());
        program.run(&answer).unwrap();
    }
    program.age_flows(14 * TICKS_PER_SECOND).unwrap();
    ask(&mut program, 5);
    assert_eq!(ports(&mut program), [1, 2, 3, 4]);
    program.age_flows(2 * TICKS_PER_SECOND).unwrap();
    age(&mut program, 3, UDP, 1);
    ask(&mut program, 5);
    assert_eq!(ports(&mut program), [1, 2, 4, 5], "the oldest");
    assert!(program.events(Event::EvictedAnswered) > 0);
}

#[test]
fn a_flow_that_is_used_in_one_direction_alone_is_as_old_as_its_last_packet() {
    for replies in [true, false] {
        let mut program = world_of(8);
        for port in 1..5 {
            ask(&mut program, port);
            let answer = Frame::udp(BACKEND_3, client(port).as_str());
            program.run(&answer).unwrap();
        }
        // The entry of the other direction has been silent for longer than it is protected.
        for _ in 0..4 {
            program.age_flows(10 * TICKS_PER_SECOND).unwrap();
            for port in 1..5 {
                if replies {
                    let answer = Frame::udp(BACKEND_3, client(port).as_str());
                    program.run(&answer).unwrap();
                } else {
                    ask(&mut program, port);
                }
            }
        }
        for port in 5..15 {
            ask(&mut program, port);
        }
        assert_eq!(ports(&mut program), [1, 2, 3, 4], "replies {replies}");
        assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
        program.age_flows(16 * TICKS_PER_SECOND).unwrap();
        ask(&mut program, 5);
        assert!(ports(&mut program).contains(&5), "replies {replies}");
    }
}

#[test]
fn a_connection_that_one_end_keeps_up_is_not_evicted_for_the_others_silence() {
    for by_client in [true, false] {
        let mut program = world_of(8);
        let backends: Vec<_> = (1..5).map(|port| establish(&mut program, port)).collect();
        program.age_flows(7_430 * TICKS_PER_SECOND).unwrap();
        let client = client(1);
        let frame = if by_client {
            Frame::tcp(client.as_str(), WEB)
        } else {
            Frame::tcp(backends[0].as_str(), client.as_str())
        };
        program.run(&frame.flags(ACK)).unwrap();
        program.age_flows(20 * TICKS_PER_SECOND).unwrap();
        for port in 5..9 {
            open(&mut program, port);
        }
        assert!(
            ports(&mut program).contains(&1),
            "by the client {by_client}"
        );
        assert_eq!(backend(&mut program, 1, TCP).as_ref(), Some(&backends[0]));
        assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn established_connections_are_never_evicted_before_their_time() {
    let mut program = world_of(8);
    let backends: Vec<_> = (1..5).map(|port| establish(&mut program, port)).collect();
    program.age_flows(7_430 * TICKS_PER_SECOND).unwrap();
    let refused = 20;
    for port in 5..5 + refused {
        open(&mut program, port);
    }
    assert_eq!(ports(&mut program), [1, 2, 3, 4]);
    assert_eq!(
        program.events(Event::Overflow),
        u64::from(refused),
        "each is counted"
    );
    for (port, known) in (1..5).zip(backends) {
        assert_eq!(backend(&mut program, port, TCP), Some(known));
    }
    program.age_flows(20 * TICKS_PER_SECOND).unwrap();
    open(&mut program, 5);
    assert!(
        ports(&mut program).contains(&5),
        "two hours and four minutes"
    );
}

#[test]
fn a_flood_of_syns_costs_no_established_connection() {
    let mut program = world_of(128);
    let backends: Vec<_> = (1..17).map(|port| establish(&mut program, port)).collect();
    for wave in 0..8u8 {
        for number in 0..250u8 {
            let from = format!("203.0.113.{number}:{}", 1_000 + u16::from(wave));
            program.run(&syn(&from, WEB)).unwrap();
        }
        // Time enough for the next wave to evict this one.
        program.age_flows(4 * TICKS_PER_SECOND).unwrap();
    }
    assert!(program.events(Event::EvictedHalfOpen) > 100);
    assert!(program.events(Event::Overflow) > 500);
    assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
    for (port, known) in (1..17).zip(backends) {
        let client = client(port);
        let data = Frame::tcp(client.as_str(), WEB).flags(ACK);
        let sent = program.run(&data).unwrap();
        assert_eq!(sent.frame().ipv4().destination, *socket(&known).ip());
        let reply = Frame::tcp(known.as_str(), client.as_str()).flags(ACK);
        let answered = program.run(&reply).unwrap();
        assert_eq!(answered.frame().ipv4().source, *socket(WEB).ip());
    }
}

#[test]
fn a_closing_connection_is_evicted_only_after_its_time() {
    for by_client in [true, false] {
        let mut program = world_of(8);
        let backends: Vec<_> = (1..5).map(|port| establish(&mut program, port)).collect();
        for (port, backend) in (1..5).zip(backends) {
            let client = client(port);
            let fin = if by_client {
                Frame::tcp(client.as_str(), WEB).flags(FIN)
            } else {
                Frame::tcp(backend.as_str(), client.as_str()).flags(FIN)
            };
            program.run(&fin).unwrap();
        }
        // Far more than a half-open one has.
        program.age_flows(110 * TICKS_PER_SECOND).unwrap();
        open(&mut program, 5);
        assert_eq!(ports(&mut program), [1, 2, 3, 4], "by client {by_client}");
        assert_eq!(program.events(Event::Overflow), 1);
        program.age_flows(15 * TICKS_PER_SECOND).unwrap();
        open(&mut program, 6);
        assert!(ports(&mut program).contains(&6), "by client {by_client}");
        assert!(program.events(Event::EvictedOver) > 0);
    }
}

#[test]
fn a_connection_found_in_the_middle_has_three_seconds_as_one_that_opens_has() {
    let mut program = world_of(8);
    for port in 1..5 {
        let middle = Frame::tcp(client(port).as_str(), WEB).flags(ACK);
        program.run(&middle).unwrap();
    }
    program.age_flows(2 * TICKS_PER_SECOND).unwrap();
    open(&mut program, 5);
    assert_eq!(ports(&mut program), [1, 2, 3, 4]);
    assert_eq!(program.events(Event::Overflow), 1);
    program.age_flows(2 * TICKS_PER_SECOND).unwrap();
    open(&mut program, 5);
    assert!(ports(&mut program).contains(&5));
}

#[test]
fn an_answered_connection_has_three_seconds_as_one_that_opens_has() {
    let mut program = world_of(8);
    for port in 1..5 {
        open(&mut program, port);
        let backend = backend(&mut program, port, TCP).unwrap();
        let answer = Frame::tcp(backend.as_str(), client(port).as_str()).flags(SYN_ACK);
        program.run(&answer).unwrap();
    }
    program.age_flows(2 * TICKS_PER_SECOND).unwrap();
    open(&mut program, 5);
    assert_eq!(ports(&mut program), [1, 2, 3, 4]);
    program.age_flows(2 * TICKS_PER_SECOND).unwrap();
    open(&mut program, 5);
    assert!(ports(&mut program).contains(&5));
}

#[test]
fn a_reset_makes_room_at_once() {
    let mut program = world_of(8);
    for port in 1..5 {
        establish(&mut program, port);
    }
    let reset = Frame::tcp(client(3).as_str(), WEB).flags(TcpFlags::RST);
    program.run(&reset).unwrap();
    open(&mut program, 5);
    assert_eq!(ports(&mut program), [1, 2, 4, 5]);
    // One that begins so has never been anything else.
    let mut program = world_of(8);
    for port in 1..5 {
        let first = Frame::tcp(client(port).as_str(), WEB).flags(TcpFlags::RST);
        program.run(&first).unwrap();
    }
    for port in 5..9 {
        open(&mut program, port);
    }
    assert_eq!(ports(&mut program), [5, 6, 7, 8]);
    assert_eq!(program.events(Event::Overflow), 0);
}
