//! Flows that are idle past their time, while no agent runs.

use lb_tests::{
    frames::{Frame, TcpFlags},
    program::{Program, TICKS_PER_SECOND},
};

use crate::{ACK, FIN, SYN_ACK, world::*};

/// A flow in a state, and for how many seconds it may be silent there.
struct Idle {
    state: &'static str,
    packets: Vec<Frame>,
    seconds: u32,
}

fn tcp(flags: TcpFlags) -> Frame {
    Frame::tcp(CLIENT, WEB).flags(flags)
}

fn cases() -> Vec<Idle> {
    let syn = tcp(TcpFlags::SYN);
    let answer = Frame::tcp(BACKEND_1, CLIENT).flags(SYN_ACK);
    let open = [syn.clone(), answer.clone(), tcp(ACK)];
    let case = |state, packets: &[Frame], seconds| Idle {
        state,
        packets: packets.to_vec(),
        seconds,
    };
    vec![
        case("half-open", std::slice::from_ref(&syn), 30),
        case("answered", &[syn, answer], 30),
        case("established", &open, 7_440),
        case("closing", &[&open[..], &[tcp(FIN)]].concat(), 120),
    ]
}

/// Plays a flow, and lets it be silent.
fn silent(idle: &Idle, ticks: u32) -> Program {
    let mut program = world();
    for frame in &idle.packets {
        program.run(frame).unwrap();
    }
    assert_eq!(program.service_counters(1).new_flows, 1);
    program.age_flows(ticks).unwrap();
    program
}

fn flows_made(program: &Program) -> u64 {
    program.service_counters(1).new_flows
}

#[test]
fn a_segment_finds_its_flow_until_the_time_of_its_state_is_over() {
    for idle in cases() {
        for (seconds, made) in [(idle.seconds - 2, 1), (idle.seconds + 2, 2)] {
            let mut program = silent(&idle, seconds * TICKS_PER_SECOND);
            program.run(&tcp(ACK)).unwrap();
            assert_eq!(flows_made(&program), made, "{} for {seconds} s", idle.state);
            assert_eq!(program.flows().unwrap().len(), 2, "{}", idle.state);
            assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_new_connection_does_not_use_an_entry_that_is_over() {
    for idle in cases() {
        let mut program = silent(&idle, (idle.seconds + 2) * TICKS_PER_SECOND);
        let opens = tcp(TcpFlags::SYN);
        let outcome = program.run(&opens).unwrap();
        let expected = Fate::Crosses(across_to_backend(&opens, 2, BACKEND_2));
        assert_eq!(
            expected.differs(&opens.bytes(), &outcome),
            None,
            "{}: the next backend in turn",
            idle.state
        );
        let late = Frame::tcp(BACKEND_1, CLIENT).flags(ACK);
        let outcome = program.run(&late).unwrap();
        assert_eq!(
            Fate::Passes.differs(&late.bytes(), &outcome),
            None,
            "{}: the old backend's entry went with it",
            idle.state
        );
    }
}

#[test]
fn a_full_table_of_idle_flows_takes_new_ones_though_no_agent_runs() {
    let mut program = world_of(8);
    let from = |port| format!("198.51.100.7:{port}");
    for port in 1..5 {
        program.run(&syn(&from(port), WEB)).unwrap();
        let entries = program.entries().unwrap();
        let newest = entries
            .iter()
            .find(|held| held.key.source().port() == port && !held.recipe.is_reverse());
        let backend = newest.unwrap().recipe.rewritten().to_string();
        for frame in [
            Frame::tcp(backend.as_str(), from(port).as_str()).flags(SYN_ACK),
            Frame::tcp(from(port).as_str(), WEB).flags(ACK),
        ] {
            program.run(&frame).unwrap();
        }
    }
    program.age_flows(7_442 * TICKS_PER_SECOND).unwrap();
    for port in 5..9 {
        program.run(&syn(&from(port), WEB)).unwrap();
    }
    let entries = program.entries().unwrap();
    let mut ports: Vec<_> = entries
        .iter()
        .filter(|held| !held.recipe.is_reverse())
        .map(|held| held.key.source().port())
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [5, 6, 7, 8]);
}

#[test]
fn ages_are_right_however_far_the_ticks_have_gone() {
    let established = &cases()[2];
    // Half the range and more are old; what another CPU's clock has just written is not.
    for (ticks, made) in [
        (1 << 30, 2),
        (1 << 31, 2),
        ((1 << 31) + 5, 2),
        (3 << 30, 2),
        (0u32.wrapping_sub(1 << 21), 2),
        (0u32.wrapping_sub(1_000), 1),
        (0u32.wrapping_sub(1), 1),
    ] {
        let mut program = silent(established, ticks);
        program.run(&tcp(ACK)).unwrap();
        assert_eq!(flows_made(&program), made, "{ticks:#x} ticks");
    }
}

#[test]
fn only_what_is_ancient_is_freed_by_the_maintenance_program() {
    let ancient = lb_common::table::ANCIENT_TICKS;
    for idle in cases() {
        let mut program = silent(&idle, ancient - 5 * TICKS_PER_SECOND);
        program.expire().unwrap();
        assert_eq!(program.flows().unwrap().len(), 2, "{}", idle.state);
        program.age_flows(10 * TICKS_PER_SECOND).unwrap();
        program.expire().unwrap();
        assert_eq!(program.flows().unwrap().len(), 0, "{}", idle.state);
        program.run(&tcp(TcpFlags::SYN)).unwrap();
        assert_eq!(flows_made(&program), 2, "{}", idle.state);
        assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn an_ancient_entry_takes_its_younger_partner_with_it() {
    let mut program = silent(&cases()[2], lb_common::table::ANCIENT_TICKS + 1_000);
    // A reply after all that time touches its own entry first.
    program
        .run(&Frame::tcp(BACKEND_1, CLIENT).flags(ACK))
        .unwrap();
    program.expire().unwrap();
    assert_eq!(program.table_faults().unwrap(), Vec::<String>::new());
}
