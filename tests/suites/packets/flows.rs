//! What becomes of a flow over several packets: rotation, states, collisions, backends that come and go.

use lb_common::{
    abi::{Protocol, word::BackendState},
    flow::State,
};
use lb_tests::{
    frames::{Frame, Mac, TcpFlags},
    program::{Program, TICKS_PER_SECOND},
};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::{ACK, FIN, SYN_ACK, expect, world::*};

#[test]
fn a_reply_goes_to_the_client_from_the_vip() {
    let client = Mac([0x02, 0xaa, 0, 0, 0, 7]);
    let mut program = world();
    let first = syn(CLIENT, WEB).source_mac(client);
    program.run(&first).unwrap();
    let reply = Frame::tcp(BACKEND_1, CLIENT)
        .flags(SYN_ACK)
        .source_mac(backend_mac(1));
    expect(
        &mut program,
        "reply",
        &reply,
        &Fate::Leaves(to_client(&reply, WEB, client)),
    );

    let moved = Mac([0x02, 0xaa, 0, 0, 0, 8]);
    let ack = Frame::tcp(CLIENT, WEB).source_mac(moved);
    expect(
        &mut program,
        "ack",
        &ack,
        &Fate::Leaves(to_backend(&ack, 1, BACKEND_1)),
    );
    expect(
        &mut program,
        "after the client's router changed",
        &reply,
        &Fate::Leaves(to_client(&reply, WEB, moved)),
    );
}

#[test]
fn connections_rotate_and_packets_of_one_stay_together() {
    let mut program = world();
    for round in 0..6u16 {
        let from = format!("198.51.100.7:{}", 41_000 + round);
        let (number, address) = if round % 2 == 0 {
            (1, BACKEND_1)
        } else {
            (2, BACKEND_2)
        };
        for flags in [TcpFlags::SYN, TcpFlags::SYN, ACK, ACK] {
            let frame = Frame::tcp(from.as_str(), WEB).flags(flags);
            let fate = if number == 1 {
                Fate::Leaves(to_backend(&frame, number, address))
            } else {
                Fate::Crosses(across_to_backend(&frame, number, address))
            };
            expect(
                &mut program,
                &format!("round {round} {flags:?}"),
                &frame,
                &fate,
            );
        }
    }
    let counters = program.service_counters(1);
    assert_eq!((counters.new_flows, counters.forward_packets), (6, 24));
    assert_eq!(counters.forward_bytes, 24 * 54);
    assert_eq!(program.backend_counters(1).new_flows, 3);
    assert_eq!(program.backend_counters(2).forward_packets, 12);
}

#[test]
fn a_service_is_forgotten_with_its_key_and_its_flows_go_on() {
    stay();
    let mut program = world();
    let old = syn(CLIENT, WEB);
    let fate = Fate::Leaves(to_backend(&old, 1, BACKEND_1));
    expect(&mut program, "before", &old, &fate);
    program
        .remove_key(WEB.parse().unwrap(), Protocol::Tcp)
        .unwrap();
    let new = syn("198.51.100.7:41000", WEB);
    expect(&mut program, "without its key", &new, &Fate::Passes);
    expect(&mut program, "of a flow from before", &old, &fate);
    program
        .set_service(1, WEB.parse().unwrap(), Protocol::Tcp, &[1])
        .unwrap();
    let fate = Fate::Leaves(to_backend(&new, 1, BACKEND_1));
    expect(&mut program, "with its key again", &new, &fate);
}

/// Keeps this test on its CPU, which is to remember.
pub(crate) fn stay() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    sched_setaffinity(None, &one).unwrap();
}

#[test]
fn a_segment_from_the_middle_leaves_the_rotation_alone() {
    let mut program = world();
    for port in 0..20 {
        let from = format!("198.51.100.9:{}", 50_000 + port);
        let outcome = program.run(&Frame::tcp(from.as_str(), WEB)).unwrap();
        assert!(
            matches!(outcome.counted[..], ["transmit" | "redirect"]),
            "{outcome:?}"
        );
    }
    let next = syn(CLIENT, WEB);
    expect(
        &mut program,
        "the first SYN",
        &next,
        &Fate::Leaves(to_backend(&next, 1, BACKEND_1)),
    );
}

#[test]
fn a_port_used_again_after_the_close_is_a_new_connection() {
    let mut program = world();
    let open = syn(CLIENT, WEB);
    expect(
        &mut program,
        "first",
        &open,
        &Fate::Leaves(to_backend(&open, 1, BACKEND_1)),
    );
    for frame in [
        Frame::tcp(BACKEND_1, CLIENT).flags(SYN_ACK),
        Frame::tcp(CLIENT, WEB),
        Frame::tcp(CLIENT, WEB).flags(FIN),
        Frame::tcp(BACKEND_1, CLIENT).flags(FIN),
        Frame::tcp(CLIENT, WEB),
    ] {
        program.run(&frame).unwrap();
    }
    let states: Vec<u8> = program
        .flows()
        .unwrap()
        .iter()
        .map(|(_, entry)| entry.state())
        .collect();
    assert_eq!(states, [State::Closed as u8; 2]);
    expect(
        &mut program,
        "again",
        &open,
        &Fate::Crosses(across_to_backend(&open, 2, BACKEND_2)),
    );
    assert_eq!(
        program.flows().unwrap().len(),
        2,
        "the old entries are gone"
    );
}

#[test]
fn the_state_of_a_flow_stands_in_both_entries() {
    let mut program = world();
    let seen = |program: &mut Program| -> Vec<u8> {
        program
            .flows()
            .unwrap()
            .iter()
            .map(|(_, entry)| entry.state())
            .collect()
    };
    program.run(&syn(CLIENT, WEB)).unwrap();
    assert_eq!(seen(&mut program), [State::HalfOpen as u8; 2]);
    program.run(&Frame::tcp(CLIENT, WEB)).unwrap();
    assert_eq!(
        seen(&mut program),
        [State::HalfOpen as u8; 2],
        "a client alone establishes nothing"
    );
    program
        .run(&Frame::tcp(BACKEND_1, CLIENT).flags(SYN_ACK))
        .unwrap();
    program.run(&Frame::tcp(CLIENT, WEB)).unwrap();
    assert_eq!(seen(&mut program), [State::Established as u8; 2]);
}

#[test]
fn an_idle_udp_flow_is_scheduled_again() {
    let mut program = world();
    program.run(&Frame::udp(CLIENT, DNS)).unwrap();
    program.age_flows(TICKS_PER_SECOND * 31).unwrap();
    program.run(&Frame::udp(CLIENT, DNS)).unwrap();
    assert_eq!(program.service_counters(2).new_flows, 2);
}

#[test]
fn two_vips_one_client_port_and_one_backend_collide_and_the_second_drops() {
    let mut program = world();
    program.run(&syn(CLIENT, WEB)).unwrap();
    let second = syn(CLIENT, WEB_AGAIN);
    expect(
        &mut program,
        "second VIP",
        &second,
        &Fate::Drops("reply_collision"),
    );
    let reset = Frame::tcp(CLIENT, WEB).flags(TcpFlags::RST);
    program.run(&reset).unwrap();
    expect(
        &mut program,
        "after the first closed",
        &second,
        &Fate::Leaves(to_backend(&second, 1, BACKEND_1)),
    );
}

#[test]
fn a_collision_takes_the_next_backend_where_there_is_one() {
    let mut program = world();
    program.run(&syn(CLIENT, WEB_AGAIN)).unwrap();
    let second = syn(CLIENT, WEB);
    expect(
        &mut program,
        "second VIP",
        &second,
        &Fate::Crosses(across_to_backend(&second, 2, BACKEND_2)),
    );
}

#[test]
fn a_backend_that_takes_no_new_flows_keeps_its_old_ones() {
    let mut program = world();
    program.run(&syn(CLIENT, WEB)).unwrap();
    program
        .set_backend_state(1, socket(BACKEND_1), BackendState::IN_USE, 1)
        .unwrap();
    let old = Frame::tcp(CLIENT, WEB);
    expect(
        &mut program,
        "old flow",
        &old,
        &Fate::Leaves(to_backend(&old, 1, BACKEND_1)),
    );
    for port in 1..5 {
        let new = syn(&format!("198.51.100.7:{port}"), WEB);
        expect(
            &mut program,
            "new flow",
            &new,
            &Fate::Crosses(across_to_backend(&new, 2, BACKEND_2)),
        );
    }
}

#[test]
fn a_row_with_another_tenant_does_not_inherit_flows() {
    let mut program = world();
    program.run(&syn(CLIENT, WEB)).unwrap();
    program
        .set_backend_state(1, socket("10.2.0.99:80"), BackendState::IN_USE, 2)
        .unwrap();
    let frame = syn(CLIENT, WEB);
    expect(
        &mut program,
        "stale flow",
        &frame,
        &Fate::Crosses(across_to_backend(&frame, 2, BACKEND_2)),
    );
}

#[test]
fn a_flow_that_is_used_in_one_direction_alone_stays() {
    for replies in [true, false] {
        let mut program = world();
        program.run(&Frame::udp(CLIENT, DNS)).unwrap();
        program.run(&Frame::udp(BACKEND_3, CLIENT)).unwrap();
        for _ in 0..8 {
            program.age_flows(TICKS_PER_SECOND * 60).unwrap();
            let frame = if replies {
                Frame::udp(BACKEND_3, CLIENT)
            } else {
                Frame::udp(CLIENT, DNS)
            };
            let way = if replies { "transmit" } else { "redirect" };
            assert_eq!(program.run(&frame).unwrap().counted, [way]);
        }
        program.run(&Frame::udp(CLIENT, DNS)).unwrap();
        assert_eq!(
            program.service_counters(2).new_flows,
            1,
            "replies {replies}"
        );
    }
}

#[test]
fn a_slot_of_an_earlier_generation_is_skipped() {
    let mut program = world();
    // The row has a new tenant, which takes new flows; the slots still name the old one.
    let flags = BackendState::IN_USE | BackendState::ACCEPTS;
    program
        .set_backend_state(1, socket("10.2.0.99:80"), flags, 2)
        .unwrap();
    for port in 1..5 {
        for frame in [
            syn(&format!("198.51.100.7:{port}"), WEB),
            Frame::tcp(format!("198.51.100.8:{port}").as_str(), WEB),
        ] {
            let fate = Fate::Crosses(across_to_backend(&frame, 2, BACKEND_2));
            expect(&mut program, "a new flow", &frame, &fate);
        }
    }
    let only = syn(CLIENT, WEB_AGAIN);
    expect(&mut program, "no other", &only, &Fate::Drops("no_backend"));
}

#[test]
fn a_reset_of_an_unknown_connection_protects_nothing_and_leaves_the_rotation_alone() {
    for flags in [TcpFlags::RST, TcpFlags::RST | ACK] {
        let mut program = world();
        let reset = Frame::tcp(CLIENT, WEB).flags(flags);
        let outcome = program.run(&reset).unwrap();
        assert!(
            matches!(outcome.counted[..], ["transmit" | "redirect"]),
            "{outcome:?}"
        );
        let states: Vec<_> = program
            .flows()
            .unwrap()
            .iter()
            .map(|(_, entry)| entry.state())
            .collect();
        assert_eq!(states, [State::Reset as u8; 2], "{flags:?}");
        let next = syn(CLIENT, WEB);
        let fate = Fate::Leaves(to_backend(&next, 1, BACKEND_1));
        expect(&mut program, "the first SYN", &next, &fate);
        assert_eq!(program.service_counters(1).new_flows, 2);
    }
}

#[test]
fn a_flow_in_its_second_pair_is_found_again() {
    const ENTRIES: u32 = 64;
    let mut program = world_of(ENTRIES);
    // Ports in a row would be spread too evenly.
    let client = |number: u16| format!("198.51.100.7:{}", 1_000 + number * number);
    let mut flows = Vec::new();
    for port in 1..60 {
        let made = program.service_counters(1).new_flows;
        let sent = program.run(&syn(&client(port), WEB)).unwrap();
        if program.service_counters(1).new_flows == made {
            // No room: it goes on without an entry.
            continue;
        }
        let to = sent.frame().ipv4().destination;
        let backend = format!("{to}:8080");
        for frame in [
            Frame::tcp(backend.as_str(), client(port).as_str()).flags(SYN_ACK),
            Frame::tcp(client(port).as_str(), WEB),
        ] {
            program.run(&frame).unwrap();
        }
        flows.push((port, to));
    }
    let pair = |index: u32| index / lb_common::abi::PAIR;
    let entries = program.entries().unwrap();
    let spilled = entries.iter().filter(|held| {
        let home = lb_common::table::hash(&held.key, 0) & (ENTRIES / 4 - 1);
        pair(held.index) != home / 2
    });
    assert!(spilled.count() > 0, "none went to a second pair");
    let made = program.service_counters(1).new_flows;
    for (port, to) in flows {
        let there = Frame::tcp(client(port).as_str(), WEB).payload(b"there");
        let outcome = program.run(&there).unwrap();
        assert_eq!(outcome.frame().ipv4().destination, to, "{port}");
        let back = Frame::tcp(format!("{to}:8080").as_str(), client(port).as_str());
        let outcome = program.run(&back).unwrap();
        assert_eq!(outcome.frame().ipv4().source, *socket(WEB).ip(), "{port}");
    }
    assert_eq!(program.service_counters(1).new_flows, made, "found again");
    assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
}
