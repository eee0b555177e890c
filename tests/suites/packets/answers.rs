//! What the balancer says itself, and how often: echo replies, time exceeded, and the agent's events.

use std::net::Ipv4Addr;

use lb_common::abi::RATE_LIMIT;
use lb_tests::{
    frames::{DEFAULT_SOURCE, Frame, Icmp},
    program::{OUR_ADDRESS, OUR_MAC, Program, TICKS_PER_SECOND},
};

use crate::{expect, flows::stay, world::*};

#[test]
fn an_echo_request_to_a_vip_is_answered() {
    let client = Ipv4Addr::new(198, 51, 100, 7);
    let vip = Ipv4Addr::new(192, 0, 2, 10);
    let request = Frame::echo_request(client, vip, 7, 9).ttl(3);
    let outcome = world().run(&request).unwrap();
    assert_eq!(
        (outcome.action, &outcome.counted[..]),
        (3, &["echo_reply"][..])
    );
    let expected = Frame::icmp(
        vip,
        client,
        Icmp::new(Icmp::ECHO_REPLY, [0, 7, 0, 9], b"echo/8by"),
    )
    .ttl(64)
    .ip(|ip| ip.identification = request.ipv4().identification)
    .source_mac(OUR_MAC)
    .destination_mac(DEFAULT_SOURCE);
    assert_eq!(outcome.frame(), expected);
}

#[test]
fn a_ttl_that_runs_out_is_answered() {
    let options = syn(CLIENT, WEB).ip(|ip| ip.options = vec![1; 8]);
    let long = Frame::tcp(CLIENT, WEB).payload(&[7; 600]);
    for sent in [
        syn(CLIENT, WEB).ttl(1),
        options.ttl(1),
        long.ttl(1),
        syn(CLIENT, WEB).ttl(0),
    ] {
        let outcome = world().run(&sent).unwrap();
        assert_eq!(
            (outcome.action, &outcome.counted[..]),
            (3, &["time_exceeded"][..]),
            "{sent:?}"
        );
        let answer = outcome.frame();
        assert_eq!(answer.faults(), Vec::<String>::new());
        assert_eq!(
            (answer.source, answer.destination),
            (OUR_MAC, DEFAULT_SOURCE)
        );
        assert_eq!(answer.ipv4().source, OUR_ADDRESS);
        assert_eq!(answer.ipv4().destination, *socket(CLIENT).ip());
        let message = answer.icmp_message();
        assert_eq!((message.kind, message.code), (Icmp::TIME_EXCEEDED, 0));
        let packet = &sent.bytes()[14..];
        let quoted = sent.ipv4().options.len() + 28;
        assert_eq!(
            message.payload,
            packet[..quoted],
            "the header and 8 bytes, as they came"
        );
    }
}

#[test]
fn a_ttl_that_runs_out_takes_no_turn_and_makes_no_flow() {
    let mut program = world();
    let clients = ["198.51.100.7:1001", "198.51.100.7:1002"];
    let [first, second] = clients.map(|client| syn(client, WEB));
    program.run(&first).unwrap();
    let counts = Counts::of(&program);
    for port in 2_000..2_003 {
        let traced = syn(&format!("198.51.100.7:{port}"), WEB).ttl(1);
        assert_eq!(program.run(&traced).unwrap().counted, ["time_exceeded"]);
    }
    assert_eq!(Counts::of(&program), counts, "no flow, no packet");
    let next = Fate::Crosses(across_to_backend(&second, 2, BACKEND_2));
    expect(&mut program, "the next in turn", &second, &next);
    // Where nobody could be chosen the hop is counted all the same.
    let nobody = syn(CLIENT, EMPTY).ttl(1);
    assert_eq!(program.run(&nobody).unwrap().counted, ["time_exceeded"]);
}

#[test]
fn nobody_answers_an_echo_request_of_a_martian() {
    let vip = *socket(WEB).ip();
    for source in [
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.5",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let request = Frame::echo_request(source.parse().unwrap(), vip, 7, 9);
        expect(
            &mut world(),
            source,
            &request,
            &Fate::Drops("martian_source"),
        );
    }
}

#[test]
fn an_echo_request_that_is_all_zeroes_is_answered_with_a_right_checksum() {
    let (client, vip) = (*socket(CLIENT).ip(), *socket(WEB).ip());
    for data in [0, 8, 56] {
        let request = Icmp::new(Icmp::ECHO_REQUEST, [0; 4], &vec![0; data]);
        let request = Frame::icmp(client, vip, request);
        let outcome = world().run(&request).unwrap();
        assert_eq!(outcome.counted, ["echo_reply"]);
        let reply = Icmp::new(Icmp::ECHO_REPLY, [0; 4], &vec![0; data]);
        assert_eq!(outcome.frame().icmp_message().to_bytes(), reply.to_bytes());
        // Zero is the other form of it, which a receiver that compares and does not add up refuses.
        assert_eq!(outcome.bytes[36..38], [0xff; 2]);
    }
}

/// Runs the frame until its verdict is another, and tells how often it was not.
fn allowed(program: &mut Program, frame: &Frame, then: &str) -> u32 {
    // Each test run takes microseconds; a second may pass on a busy machine, and the allowance then is there twice.
    for count in 0..50 * RATE_LIMIT {
        if program.run(frame).unwrap().counted == [then] {
            return count;
        }
    }
    panic!("{then} was never counted");
}

#[test]
fn answers_to_expired_ttls_are_limited_and_allowed_again_after_a_second() {
    // Each CPU has its own allowance.
    stay();
    let mut program = world();
    let frame = syn(CLIENT, WEB).ttl(1);
    for round in 0..3 {
        let sent = allowed(&mut program, &frame, "ttl_exceeded");
        assert!(sent >= RATE_LIMIT, "round {round}: {sent}");
        program.age_limits(TICKS_PER_SECOND).unwrap();
    }
}

#[test]
fn the_agent_is_asked_for_a_way_so_often_and_again_after_a_second() {
    stay();
    let mut program = world();
    let frame = syn(CLIENT, FAR);
    for round in 0..3 {
        let wanted = loop {
            for _ in 0..=RATE_LIMIT {
                expect(
                    &mut program,
                    "unknown",
                    &frame,
                    &Fate::Drops("no_neighbour"),
                );
            }
            let wanted = program.wanted().unwrap();
            // Of more runs than are allowed some asked for nothing, unless a second has begun meanwhile.
            if wanted.len() <= RATE_LIMIT as usize {
                break wanted;
            }
        };
        assert_eq!(wanted.first(), Some(&4), "round {round}");
        assert!(wanted.iter().all(|backend| *backend == 4), "{wanted:?}");
        program.age_limits(TICKS_PER_SECOND).unwrap();
    }
}
