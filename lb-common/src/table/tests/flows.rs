//! Flows for a table of any memory.

use core::net::{Ipv4Addr, SocketAddrV4};

use crate::{
    abi::{FlowKey, Recipe},
    flow::{Clock, State},
    table::{self, Evicted, Memory, Outcome, Search, Work, find, set_state_of_flow},
};

/// Ticks a second.
pub(super) const TICKS: u32 = 250;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// What an insert came to, with what it left in its [`Work`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Result {
    Made(Recipe, [Evicted; 2]),
    Existing(Recipe),
    Refused(Outcome),
}

impl Result {
    /// The recipe and the evicted of a flow that was made.
    pub(super) fn made(self) -> (Recipe, [Evicted; 2]) {
        match self {
            Self::Made(recipe, evicted) => (recipe, evicted),
            other => panic!("expected a flow, saw {other:?}"),
        }
    }
}

/// The time, in seconds since the ticks were 0.
pub(super) fn clock(seconds: u32) -> Clock {
    Clock {
        now: seconds * TICKS,
        ticks_per_second: TICKS,
    }
}

/// Packets of a client to the VIP.
pub(super) fn client(port: u16, protocol: u8) -> FlowKey {
    other_client(7, port, protocol)
}

/// Packets of another client, by the last byte of its address.
pub(super) fn other_client(last: u8, port: u16, protocol: u8) -> FlowKey {
    FlowKey::new(
        SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, last), port),
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80),
        protocol,
    )
}

/// A flow to a backend, all but its key.
pub(super) fn binding(backend: u16, state: State, seconds: u32) -> Work {
    let [high, low] = backend.to_be_bytes();
    Work {
        backend_address: u32::from_ne_bytes([10, 0, high, low]),
        backend_port: 8080u16.to_be(),
        backend,
        backend_generation: 1,
        state: state as u8,
        service: 1,
        ingress_print: 7,
        way: 9,
        clock: clock(seconds),
        ..Work::default()
    }
}

/// Makes a flow; `over` is the tag of the entry that the caller found to be over, or 0.
pub(super) fn insert<M: Memory>(memory: &M, key: &FlowKey, over: u64, binding: &Work) -> Result {
    let mut work = Work {
        key: *key,
        over,
        ..*binding
    };
    match table::insert(memory, &mut work) {
        Outcome::Made => Result::Made(work.there, work.evicted()),
        Outcome::Existing => Result::Existing(work.there),
        other => Result::Refused(other),
    }
}

/// Looks a key up.
pub(super) fn lookup<M: Memory>(memory: &M, key: &FlowKey) -> Search<M::Entry> {
    find(memory, key)
}

/// The entry of a key, its recipe and its tag.
pub(super) fn hit<M: Memory>(memory: &M, key: &FlowKey) -> (M::Entry, Recipe, u64) {
    match lookup(memory, key) {
        Search::Hit(entry, recipe, tag) => (entry, recipe, tag),
        Search::Miss | Search::Unstable => panic!("no entry of {key:?}"),
    }
}

/// Writes a state into both entries of a flow.
pub(super) fn set_state<M: Memory>(memory: &M, key: &FlowKey, state: State) {
    let (entry, recipe, _) = hit(memory, key);
    set_state_of_flow(memory, key, (entry, &recipe), state as u8);
}

/// Makes established flows for as long as there is room.
pub(super) fn fill<M: Memory>(memory: &M) {
    for port in 1_000..1_400 {
        let bound = binding(port, State::Established, 1);
        insert(memory, &client(port, TCP), 0, &bound);
    }
}
