//! A table that is full of living flows: packets of new ones go without an entry.

use lb_common::{abi::word::BackendState, table::Event};
use lb_tests::{
    frames::{DEFAULT_SOURCE, Frame, Mac, TcpFlags},
    program::{Program, TICKS_PER_SECOND},
};

use crate::{ACK, SYN_ACK, expect, world::*};

/// Seconds for which the way of a reply without an entry is remembered.
const REMEMBERED: u32 = 30;

/// A client of a flow without an entry, by its port.
fn client(port: u16) -> String {
    format!("198.51.100.8:{port}")
}

/// Four established connections in a table that has room for no more.
fn full() -> Program {
    let mut program = world_of(8);
    for port in 1..5 {
        let client = format!("198.51.100.7:{port}");
        let sent = program.run(&syn(&client, WEB)).unwrap();
        let backend = sent.frame().ipv4().destination;
        let backend = format!("{backend}:8080");
        for frame in [
            Frame::tcp(backend.as_str(), client.as_str()).flags(SYN_ACK),
            Frame::tcp(client.as_str(), WEB).flags(ACK),
        ] {
            program.run(&frame).unwrap();
        }
    }
    assert_eq!(program.entries().unwrap().len(), 8);
    program
}

/// The backend that a client's packet goes to: its number, address and port.
fn chosen(program: &mut Program, frame: &Frame) -> (u8, &'static str) {
    let sent = program.run(frame).unwrap();
    let to = sent.frame().ipv4().destination;
    let backends = [(1, BACKEND_1), (2, BACKEND_2), (3, BACKEND_3)];
    let backend = backends
        .into_iter()
        .find(|(_, address)| *socket(address).ip() == to);
    backend.unwrap_or_else(|| panic!("went to {to}"))
}

/// Whether a client has an entry.
fn holds(program: &mut Program, client: &str) -> bool {
    let entries = program.entries().unwrap();
    entries
        .iter()
        .any(|held| held.key.source() == socket(client))
}

#[test]
fn a_segment_of_a_flow_that_another_cpu_is_at_goes_by_the_hash_that_the_other_one_goes_by() {
    let frame = Frame::tcp(client(1).as_str(), WEB).flags(ACK);
    let mut program = world_of(8);
    program.hold_locks(true).unwrap();
    let backend = chosen(&mut program, &frame);
    assert_eq!(program.events(Event::Contended), 1);
    assert!(!holds(&mut program, &client(1)));
    let answer = Frame::tcp(backend.1, client(1).as_str()).flags(ACK);
    let fate = Fate::Leaves(to_client(&answer, WEB, DEFAULT_SOURCE));
    expect(&mut program, "the answer", &answer, &fate);
    program.hold_locks(false).unwrap();
    expect(&mut program, "again", &frame, &towards(&frame, backend));
    assert!(holds(&mut program, &client(1)));
    assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
}

#[test]
fn a_syn_of_a_flow_that_another_cpu_is_at_for_too_long_drops() {
    let frame = syn(&client(1), WEB);
    let mut program = world_of(8);
    program.hold_locks(true).unwrap();
    let drops = Fate::Drops("flow_contended");
    expect(&mut program, "while the lock is held", &frame, &drops);
    assert_eq!(program.events(Event::Contended), 0);
    program.hold_locks(false).unwrap();
    let chosen = chosen(&mut program, &frame);
    expect(&mut program, "again", &frame, &towards(&frame, chosen));
    assert!(holds(&mut program, &client(1)));
}

/// The frame as it leaves towards that backend.
fn towards(frame: &Frame, (number, address): (u8, &str)) -> Fate {
    match number {
        1 => Fate::Leaves(to_backend(frame, number, address)),
        _ => Fate::Crosses(across_to_backend(frame, number, address)),
    }
}

#[test]
fn a_new_connection_is_served_without_an_entry() {
    let mut program = full();
    let before = program.entries().unwrap().len();
    for port in 1..30 {
        let client = client(port);
        let opening = syn(&client, WEB);
        let backend = chosen(&mut program, &opening);
        expect(
            &mut program,
            "the SYN again",
            &opening,
            &towards(&opening, backend),
        );
        let answer = Frame::tcp(backend.1, client.as_str()).flags(SYN_ACK);
        let answered = Fate::Leaves(to_client(&answer, WEB, DEFAULT_SOURCE));
        expect(&mut program, "the answer", &answer, &answered);
        let data = Frame::tcp(client.as_str(), WEB)
            .flags(ACK)
            .payload(b"GET /");
        expect(&mut program, "data", &data, &towards(&data, backend));
        let reply = Frame::tcp(backend.1, client.as_str())
            .flags(ACK)
            .payload(b"200");
        let replied = Fate::Leaves(to_client(&reply, WEB, DEFAULT_SOURCE));
        expect(&mut program, "a reply", &reply, &replied);
    }
    assert_eq!(program.entries().unwrap().len(), before);
    assert_eq!(
        program.events(Event::Overflow),
        3 * 29,
        "each packet of a client"
    );
    assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
}

#[test]
fn a_connection_that_began_without_an_entry_gets_one_on_the_same_backend_once_there_is_room() {
    for port in 1..9 {
        let mut program = full();
        let client = client(port);
        let backend = chosen(&mut program, &syn(&client, WEB));
        program.age_flows(7_450 * TICKS_PER_SECOND).unwrap();
        let data = Frame::tcp(client.as_str(), WEB).flags(ACK);
        expect(&mut program, "data", &data, &towards(&data, backend));
        let entries = program.entries().unwrap();
        let held = entries
            .iter()
            .find(|held| held.key.source() == socket(&client));
        assert_eq!(held.unwrap().recipe.rewritten(), socket(backend.1));
    }
}

#[test]
fn a_syn_that_is_sent_again_once_there_is_room_stays_with_its_backend() {
    for port in 1..9 {
        let mut program = full();
        let client = client(port);
        let opening = syn(&client, WEB);
        let backend = chosen(&mut program, &opening);
        program.age_flows(7_450 * TICKS_PER_SECOND).unwrap();
        expect(
            &mut program,
            "the SYN again",
            &opening,
            &towards(&opening, backend),
        );
        assert!(holds(&mut program, &client), "there is room now");
    }
}

#[test]
fn a_flow_that_gets_an_entry_leaves_the_replies_of_one_without_alone() {
    for port in 1..9 {
        let mut program = full();
        let client = client(port);
        let there = chosen(&mut program, &syn(&client, WEB_AGAIN));
        assert_eq!(there.0, 1, "the only one");
        program.age_flows(7_450 * TICKS_PER_SECOND).unwrap();
        assert_eq!(
            chosen(&mut program, &syn(&client, WEB)).0,
            2,
            "replies of 1 are the other VIP's"
        );
        assert!(holds(&mut program, &client), "there is room now");
    }
}

#[test]
fn replies_go_to_where_the_client_was_last_heard_and_only_for_a_while() {
    let mut program = full();
    let client = client(1);
    let moved = Mac([0x02, 0, 0, 0, 9, 9]);
    let opening = syn(&client, WEB);
    let backend = chosen(&mut program, &opening);
    program.run(&opening.clone().source_mac(moved)).unwrap();
    let answer = Frame::tcp(backend.1, client.as_str()).flags(SYN_ACK);
    let answered = Fate::Leaves(to_client(&answer, WEB, moved));
    expect(&mut program, "another router", &answer, &answered);
    program
        .age_overflow((REMEMBERED - 1) * TICKS_PER_SECOND)
        .unwrap();
    expect(&mut program, "in time", &answer, &answered);
    program.age_overflow(2 * TICKS_PER_SECOND).unwrap();
    expect(&mut program, "too late", &answer, &Fate::Passes);
}

#[test]
fn what_a_backend_sends_to_anybody_else_passes() {
    let mut program = full();
    let client = client(1);
    let backend = chosen(&mut program, &syn(&client, WEB));
    let other = if backend.0 == 1 { BACKEND_2 } else { BACKEND_1 };
    for (what, from, to) in [
        ("another port of the client", backend.1, "198.51.100.8:2"),
        ("the host, which checks it", backend.1, "10.2.0.1:40000"),
        ("another backend", other, client.as_str()),
    ] {
        let frame = Frame::tcp(from, to).flags(SYN_ACK);
        expect(&mut program, what, &frame, &Fate::Passes);
    }
}

#[test]
fn the_reply_of_a_living_flow_is_not_taken_by_one_without_an_entry() {
    // VIP 192.0.2.11 has backend 1 alone, which these clients already talk to by the other VIP.
    let mut program = full();
    let mut refused = 0;
    for port in 1..5 {
        let client = format!("198.51.100.7:{port}");
        let entries = program.entries().unwrap();
        let taken = entries.iter().any(|held| {
            held.key.source() == socket(&client) && held.recipe.rewritten() == socket(BACKEND_1)
        });
        let opening = syn(&client, WEB_AGAIN);
        let fate = if taken {
            refused += 1;
            Fate::Drops("reply_collision")
        } else {
            towards(&opening, (1, BACKEND_1))
        };
        expect(
            &mut program,
            "the same client at another VIP",
            &opening,
            &fate,
        );
    }
    assert_eq!(refused, 2);
}

#[test]
fn a_backend_that_takes_no_new_flows_gets_none_without_an_entry_either() {
    let mut program = full();
    program
        .set_backend_state(2, socket(BACKEND_2), BackendState::IN_USE, 1)
        .unwrap();
    for port in 1..20 {
        let opening = syn(&client(port), WEB);
        assert_eq!(chosen(&mut program, &opening).0, 1);
    }
}

#[test]
fn a_client_port_at_two_vips_has_two_backends_without_entries() {
    let mut program = full();
    for port in 1..20 {
        let client = client(port);
        let there = chosen(&mut program, &syn(&client, WEB_AGAIN));
        assert_eq!(there.0, 1, "the only one");
        assert_eq!(
            chosen(&mut program, &syn(&client, WEB)).0,
            2,
            "replies of 1 are the other VIP's"
        );
    }
}

#[test]
fn a_datagram_is_served_without_an_entry() {
    let mut program = full();
    let client = client(53_000);
    let question = Frame::udp(client.as_str(), DNS).payload(b"?");
    let asked = Fate::Crosses(across_to_backend(&question, 3, BACKEND_3));
    expect(&mut program, "the question", &question, &asked);
    let answer = Frame::udp(BACKEND_3, client.as_str()).payload(b"!");
    let answered = Fate::Leaves(to_client(&answer, DNS, DEFAULT_SOURCE));
    expect(&mut program, "the answer", &answer, &answered);
}

#[test]
fn a_pair_without_room_has_some_as_soon_as_a_flow_ends() {
    let mut program = full();
    let client = client(1);
    program.run(&syn(&client, WEB)).unwrap();
    assert_eq!(program.events(Event::Overflow), 1);
    let reset =
        Frame::tcp("198.51.100.7:1", WEB).flags(TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0));
    program.run(&reset).unwrap();
    program.run(&syn(&client, WEB)).unwrap();
    assert_eq!(program.events(Event::Overflow), 1);
    assert!(holds(&mut program, &client));
}

#[test]
fn replies_are_forgotten_once_their_flow_has_an_entry() {
    for port in 1..9 {
        let mut program = full();
        let client = client(port);
        let backend = chosen(&mut program, &syn(&client, WEB));
        program.age_flows(7_450 * TICKS_PER_SECOND).unwrap();
        let data = Frame::tcp(client.as_str(), WEB).flags(ACK);
        expect(&mut program, "data", &data, &towards(&data, backend));
        assert!(holds(&mut program, &client), "there is room now");
        // The flow ends, and the backend's port at the client is free for another VIP.
        let reset = data.clone().flags(TcpFlags::RST);
        expect(&mut program, "reset", &reset, &towards(&reset, backend));
        let other = syn(&client, WEB_AGAIN);
        expect(
            &mut program,
            "another VIP",
            &other,
            &towards(&other, (1, BACKEND_1)),
        );
    }
}
