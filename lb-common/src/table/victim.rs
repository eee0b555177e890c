//! Whom an insert evicts: the entries of a pair of buckets, in the order of what their flows have shown.

use super::{
    ANSWERED_PROTECTED_SECONDS, Cells, HALF_OPEN_PROTECTED_SECONDS, Memory, Site,
    age::make_as_young_as_flow,
    entry::{at, index_of, key_of, outline_of},
    pair,
    prints::{Places, byte_of, turn},
    search::hold,
    second_home,
};
use crate::{
    abi::{FlowKey, PAIR, Recipe, field},
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

/// Victims tried in a pair: the first may turn out to live.
const VICTIMS: usize = 2;
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
    pub(super) spills: u32,
    /// What the victim may be evicted as, a byte of [`Evicted`]; [`PROTECTED`] where there is none.
    class: u32,
}

impl Scan {
    const NOTHING: Self = Self {
        found: NONE,
        victim: NONE,
        tag: 0,
        spills: 0,
        class: Evicted::Nothing as u32,
    };

    #[inline(always)]
    pub(super) const fn chosen(self) -> u32 {
        if self.found == NONE {
            self.victim
        } else {
            self.found
        }
    }
}

/// Looks for a key in its first pair, which is locked, and where that has spilled in the second; and where it is in
/// neither, for a place in the first pair, or else in the second.
///
/// A lock keeps apart those who write the same key, and no others: a flow of another pair may come to this one. Two who
/// want the same entry are told by its tag.
#[inline(always)]
pub(super) fn seek<M: Memory>(
    memory: &M,
    (key, clock): (&FlowKey, &flow::Clock),
    site: Site,
    exclude: u32,
    result: &mut Scan,
) {
    *result = Scan::NOTHING;
    recall(memory, key, site, result);
    if result.found != NONE {
        return;
    }
    if memory.has_spilled(pair(site.home)) {
        let home = second_home(memory, key);
        recall(memory, key, Site { home, ..site }, result);
        if result.found != NONE {
            return;
        }
    }
    let second = second_home(memory, key);
    for (home, spills) in [(site.home, 0), (second, 1)] {
        for _ in 0..VICTIMS {
            find_room(memory, *clock, home, exclude, result);
            if !lives_in_the_other_direction(memory, *clock, result) {
                break;
            }
            result.victim = NONE;
        }
        if result.victim != NONE {
            result.spills = spills;
            return;
        }
        if u64::from(result.class) == PROTECTED && pair(home) != exclude / PAIR {
            mark_full(memory, *clock, home);
        }
    }
}

/// Notes where in a pair a key is.
#[inline(never)]
fn recall<M: Memory>(memory: &M, key: &FlowKey, site: Site, result: &mut Scan) {
    if let Some(held) = hold(memory, key, site.print, site.home, &mut 0) {
        result.found = held.index;
        result.tag = held.tag;
    }
}

/// Looks for a place other than `exclude` in a pair of buckets: the first free one from the home bucket on, or else that
/// of a victim.
///
/// The result goes through memory, where the verifier forgets which of the ways it was: it would follow each pair of
/// them to the end.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "an index, and a class")]
fn find_room<M: Memory>(
    memory: &M,
    clock: flow::Clock,
    home: u32,
    exclude: u32,
    result: &mut Scan,
) {
    result.class = Evicted::Nothing as u32;
    let free = free_place(memory, home, exclude);
    if free != NONE {
        let Some(entry) = at(memory, free) else {
            return;
        };
        result.victim = free;
        result.tag = entry.load::<{ field::TAG }>();
        return;
    }
    if is_marked_full(memory, pair(home), &clock) {
        return;
    }
    let mut best = PROTECTED << 32;
    for place in 0..PAIR {
        let index = index_of(home, place);
        let Some(entry) = at(memory, index) else {
            return;
        };
        let tag = entry.load::<{ field::TAG }>();
        let fate = fate(&outline_of(entry), key_of(entry).protocol(), &clock);
        // The class first; within it the oldest, and of equals the first. All without a branch: see `fate`.
        let cost = (fate.class << 32) | (u64::from(u32::MAX) - fate.age);
        let better = less(cost, best) * nonzero(u64::from(index ^ exclude));
        best = select(better, cost, best);
        result.victim = select(better, index.into(), result.victim.into()) as u32;
        result.tag = select(better, tag, result.tag);
        if better & fate.over != 0 {
            break;
        }
    }
    result.class = (best >> 32) as u32;
}

/// Marks a pair without a victim for as long as the youth of its entries protects each of them, and not for long.
#[inline(never)]
fn mark_full<M: Memory>(memory: &M, clock: flow::Clock, home: u32) {
    let mut wait = longest_mark(&clock);
    for place in 0..PAIR {
        if let Some(entry) = at(memory, index_of(home, place)) {
            let left = fate(&outline_of(entry), key_of(entry).protocol(), &clock).left;
            wait = select(less(left, wait), left, wait);
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "seconds in ticks")]
    memory.set_full_until(pair(home), clock.now.wrapping_add(wait as u32));
}

/// Whether a victim that was taken for its silence stays after all, because packets of its flow use its other entry. It then no
/// longer looks old.
///
/// Nobody asks for a flow that both ends were not heard of: its few seconds count from the packet that made the entry, and its partner
/// would be one more line to wait for in a flood.
#[inline(never)]
fn lives_in_the_other_direction<M: Memory>(memory: &M, clock: flow::Clock, result: &Scan) -> bool {
    const OVER: u32 = Evicted::Over as u32;
    const ANSWERED: u32 = Evicted::Answered as u32;
    if !matches!(result.class, OVER | ANSWERED) {
        return false;
    }
    let Some(entry) = at(memory, result.victim) else {
        return false;
    };
    let (key, outline) = (key_of(entry), outline_of(entry));
    !State::from_byte(outline.state()).ends()
        && make_as_young_as_flow(memory, (&key, entry, &outline), &clock)
        && fate(&outline_of(entry), key.protocol(), &clock).class != u64::from(result.class)
}

/// Index of the first free place other than `exclude` in a pair, from the home bucket on.
#[inline(always)]
pub(super) fn free_place<M: Memory>(memory: &M, home: u32, exclude: u32) -> u32 {
    let mut prints = memory.prints(pair(home));
    if exclude / PAIR == pair(home) {
        prints |= byte_of(exclude);
    }
    let free = Places::free(prints.rotate_right(turn(home)));
    if free.is_empty() {
        NONE
    } else {
        index_of(home, free.first())
    }
}

/// Whether a pair said that until now none of its entries may be evicted.
#[inline(always)]
pub(super) fn is_marked_full<M: Memory>(memory: &M, pair: u32, clock: &flow::Clock) -> bool {
    let left = memory.full_until(pair).wrapping_sub(clock.now);
    // Whatever is farther off is no mark, or one from before the ticks wrapped.
    left != 0 && u64::from(left) <= longest_mark(clock)
}

/// Ticks for which a pair may be marked: after that it is looked at again, whatever it holds.
#[inline(always)]
fn longest_mark(clock: &flow::Clock) -> u64 {
    HALF_OPEN_PROTECTED_SECONDS * u64::from(clock.ticks_per_second)
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

/// How an entry stands.
pub(super) struct Fate {
    /// What it may be evicted as: a byte of [`Evicted`], or [`PROTECTED`].
    pub(super) class: u64,
    /// 1 where it is free or idle past its time: no other entry is a better victim.
    pub(super) over: u64,
    /// Ticks since it was used.
    pub(super) age: u64,
    /// Ticks until it is no longer protected by its youth; where it is not, more than any mark lasts.
    pub(super) left: u64,
}

/// How an entry stands.
///
/// By arithmetic on tables in words: a branch would be two paths for the verifier in each of eight ways.
#[inline(always)]
pub(super) fn fate(recipe: &Recipe, protocol: u8, clock: &flow::Clock) -> Fate {
    let state = recipe.state() & 15;
    let udp = flow::is_udp(protocol);
    let classes = CLASSES ^ (UDP_CLASSES * udp);
    let protected_seconds = PROTECTED_SECONDS | (UDP_PROTECTED_SECONDS * udp);
    let class = (classes >> (4 * state)) & 15;
    let age = u64::from(clock.age(recipe.last_seen()));
    let ticks = u64::from(clock.ticks_per_second);
    let protected = ((protected_seconds >> (4 * state)) & 15) * ticks;
    let young = less(age, protected);
    let idle = less(
        u64::from(flow::idle_timeout_seconds(state, protocol)) * ticks,
        age,
    );
    let used = nonzero(u64::from(state));
    let living = class + young * (PROTECTED - class);
    Fate {
        class: used * (idle * Evicted::Over as u64 + (1 - idle) * living),
        over: idle | (1 - used),
        age,
        left: young * (protected - young * age) + (1 - young) * u64::from(u32::MAX),
    }
}

/// 1 if `a` is below `b`, else 0, without a branch; both below 2^63.
#[inline(always)]
fn less(a: u64, b: u64) -> u64 {
    core::hint::black_box(a.wrapping_sub(b)) >> 63
}

/// The first if `which` is 1 and the second if it is 0, without a branch.
#[inline(always)]
const fn select(which: u64, first: u64, second: u64) -> u64 {
    second ^ ((first ^ second) & which.wrapping_neg())
}

/// 0 for 0, else 1, without a branch; below 2^63.
#[inline(always)]
fn nonzero(value: u64) -> u64 {
    less(0, value)
}
