//! Whom an insert evicts: the entries of a pair of buckets, in the order of what their flows have shown.

use super::{
    ANSWERED_PROTECTED_SECONDS, Cells, HALF_OPEN_PROTECTED_SECONDS, Memory,
    entry::{at, index_of, key_of, outline_of},
    pair, second_home,
};
use crate::{
    abi::{FlowKey, Recipe, WAYS, field},
    flow,
    flow::State,
};

/// What an entry held before, in the order in which victims are sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Evicted {
    /// Nothing.
    Nothing = 0,
    /// A closed flow, or one idle past its time.
    Over = 1,
    /// UDP that no backend had answered.
    Unanswered = 2,
    /// A connection that had not been established, past its protected seconds.
    HalfOpen = 3,
    /// UDP that was answered and has been silent for some seconds: a question and its answer are most often all there is.
    Answered = 4,
}

impl Evicted {
    #[inline(always)]
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            1 => Self::Over,
            2 => Self::Unanswered,
            3 => Self::HalfOpen,
            4 => Self::Answered,
            _ => Self::Nothing,
        }
    }
}

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// Where a key is, or may go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Index of the key's entry, or [`NONE`].
    pub(super) found: u32,
    /// Index of the best victim, or [`NONE`].
    pub(super) victim: u32,
    /// Tag of the chosen entry, loaded before anything else of it: while it stands, so does what was seen.
    pub(super) tag: u64,
    /// 1 where the victim is in the second pair.
    pub(super) spills: u64,
}

impl Scan {
    #[inline(always)]
    pub(super) const fn chosen(self) -> u32 {
        if self.found == NONE {
            self.victim
        } else {
            self.found
        }
    }
}

/// Looks for a key and for a victim other than `exclude`, home bucket first, in both buckets of a pair.
///
/// The result goes through memory, where the verifier forgets which of the ways it was: it would follow each pair of
/// them to the end.
#[inline(never)]
pub(super) fn scan<M: Memory>(
    memory: &M,
    (key, clock): (&FlowKey, &flow::Clock),
    home: u32,
    exclude: u32,
    scan: &mut Scan,
) {
    let (mut victim, mut best, mut chosen) = (NONE, u64::MAX, 0);
    for place in 0..2 * WAYS {
        let index = index_of(home, place);
        let Some(entry) = at(memory, index) else {
            continue;
        };
        if index == exclude {
            continue;
        }
        let tag = entry.load::<{ field::TAG }>();
        let held = key_of(entry);
        if held == *key {
            scan.found = index;
            scan.tag = tag;
            return;
        }
        // The class first; within it the oldest, and of equals the first.
        let recipe = outline_of(entry);
        let class = class(&recipe, held.protocol(), clock);
        let youth = u64::from(u32::MAX - clock.age(recipe.last_seen()));
        let cost = (class << 32) | (youth * nonzero(class));
        if class < PROTECTED && cost < best {
            (best, victim, chosen) = (cost, index, tag);
        }
    }
    scan.found = NONE;
    scan.victim = victim;
    scan.tag = chosen;
}

/// Looks in the first pair, which is locked, and where that has no room or has spilled, in the second.
///
/// A lock keeps apart those who write the same key, and no others: a flow of another pair may come to this one. Two who
/// want the same entry are told by its tag.
#[inline(always)]
pub(super) fn seek<M: Memory>(
    memory: &M,
    sought: (&FlowKey, &flow::Clock),
    home: u32,
    exclude: u32,
    result: &mut Scan,
) {
    result.spills = 0;
    scan(memory, sought, home, exclude, result);
    if result.found != NONE {
        return;
    }
    if result.victim == NONE {
        scan(
            memory,
            sought,
            second_home(memory, sought.0),
            exclude,
            result,
        );
        result.spills = 1;
    } else if memory.has_spilled(pair(home)) {
        recall(memory, sought.0, second_home(memory, sought.0), result);
    }
}

/// Looks for a key alone in a pair of buckets; leaves the result as it is where there is none.
#[inline(never)]
fn recall<M: Memory>(memory: &M, key: &FlowKey, home: u32, result: &mut Scan) {
    for place in 0..2 * WAYS {
        let index = index_of(home, place);
        let Some(entry) = at(memory, index) else {
            continue;
        };
        let tag = entry.load::<{ field::TAG }>();
        if key_of(entry) == *key {
            result.found = index;
            result.tag = tag;
            return;
        }
    }
}

/// A class that is never evicted.
pub(super) const PROTECTED: u64 = 5;
/// Class of each state of a flow that is not over and past its protected seconds, four bits each, by the state's
/// number. Nothing but having seen both ends protects an entry for long.
const CLASSES: u64 = nibble(State::HalfOpen, Evicted::HalfOpen as u64)
    | nibble(State::Answered, Evicted::HalfOpen as u64)
    | nibble(State::Unconfirmed, Evicted::HalfOpen as u64)
    | nibble(State::Unanswered, Evicted::Unanswered as u64)
    | nibble(State::Closed, Evicted::Over as u64)
    | nibble(State::Reset, Evicted::Over as u64)
    | nibble(State::Established, PROTECTED)
    | nibble(State::ClosingByClient, PROTECTED)
    | nibble(State::ClosingByBackend, PROTECTED);
/// Seconds for which each state is protected.
const PROTECTED_SECONDS: u64 = nibble(State::HalfOpen, HALF_OPEN_PROTECTED_SECONDS)
    | nibble(State::Answered, HALF_OPEN_PROTECTED_SECONDS)
    | nibble(State::Unconfirmed, HALF_OPEN_PROTECTED_SECONDS);

/// What is different for UDP: an answered flow may be evicted after its protected seconds.
const UDP_CLASSES: u64 = nibble(State::Established, PROTECTED ^ Evicted::Answered as u64);
const UDP_PROTECTED_SECONDS: u64 = nibble(State::Established, ANSWERED_PROTECTED_SECONDS);

const fn nibble(state: State, value: u64) -> u64 {
    value << (4 * state as u8)
}

/// What an entry may be evicted as: a byte of [`Evicted`], or [`PROTECTED`].
///
/// By arithmetic on tables in words: a branch would be two paths for the verifier in each of eight ways.
#[inline(always)]
pub(super) fn class(recipe: &Recipe, protocol: u8, clock: &flow::Clock) -> u64 {
    let state = recipe.state() & 15;
    let udp = flow::is_udp(protocol);
    let classes = CLASSES ^ (UDP_CLASSES * udp);
    let protected_seconds = PROTECTED_SECONDS | (UDP_PROTECTED_SECONDS * udp);
    let class = (classes >> (4 * state)) & 15;
    let age = u64::from(clock.age(recipe.last_seen()));
    let ticks = u64::from(clock.ticks_per_second);
    let young = less(age, ((protected_seconds >> (4 * state)) & 15) * ticks);
    let over = less(
        u64::from(flow::idle_timeout_seconds(state, protocol)) * ticks,
        age,
    );
    let living = class + young * (PROTECTED - class);
    nonzero(u64::from(state)) * (over * Evicted::Over as u64 + (1 - over) * living)
}

/// 1 if `a` is below `b`, else 0, without a branch; both below 2^63.
#[inline(always)]
fn less(a: u64, b: u64) -> u64 {
    core::hint::black_box(a.wrapping_sub(b)) >> 63
}

/// 0 for 0, else 1, without a branch; below 2^63.
#[inline(always)]
fn nonzero(value: u64) -> u64 {
    less(0, value)
}
