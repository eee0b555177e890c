//! Stage "flow": finds and follows a packet's flow, and makes one.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::Recipe,
    flow::{self, Clock, Direction, State},
    table::{self, Cells, Event, Outcome, Remembered, SEARCH_TRIES, Search, Work},
    verdict::{DropReason, Verdict},
};

use crate::{
    control,
    ours::Packet,
    stats,
    table::{Entry, Table},
};

/// Looks up the 5-tuple as seen on the wire; an entry of either direction is a hit. Gives whether there is one: its
/// recipe then is `there` of `work`. Otherwise `over` there is the tag of the packet's entry that is over, 0 without one.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
pub(crate) fn find(packet: &Packet, work: &mut Work) -> Result<bool, Verdict> {
    let mut tries = SEARCH_TRIES;
    work.over = 0;
    let (entry, tag) = loop {
        match table::find(&Table, &packet.key) {
            Search::Hit(entry, recipe, tag) => {
                work.there = recipe;
                break (entry, tag);
            }
            Search::Miss => {
                table::warm(&Table, &packet.key, &clock());
                return Ok(false);
            }
            Search::Unstable if tries > 0 => tries -= 1,
            Search::Unstable => return Err(Verdict::Drop(DropReason::FlowContended)),
        }
    };
    if packet.fragment {
        return Err(Verdict::Drop(DropReason::Fragment));
    }
    let recipe = &work.there;
    let now = now();
    let since = now.wrapping_sub(recipe.last_seen());
    let settled =
        State::is_settled(recipe.state(), packet.flags) && since < flow::LONG_SILENCE_TICKS;
    if (!settled && !follow(packet, entry, recipe)) || (!recipe.is_reverse() && !is_current(recipe))
    {
        work.over = tag;
        return Ok(false);
    }
    if since != 0 {
        entry.touch(now);
    }
    if !recipe.is_reverse() && recipe.way != work.ingress_print {
        // The client's packets come another way: replies follow.
        let (print, way) = (work.ingress_print, work.way);
        table::move_client(&Table, &packet.key, (entry, recipe), print, way);
    }
    Ok(true)
}

/// Whether the entry's backend still is the tenant of its row.
#[inline(always)]
fn is_current(recipe: &Recipe) -> bool {
    control::backend(recipe.backend()).state().generation == recipe.backend_generation()
}

/// Follows a packet that may change the flow's state. `false` where the flow is over and the packet begins another.
#[inline(never)]
fn follow(packet: &Packet, entry: Entry, recipe: &Recipe) -> bool {
    let state = State::from_byte(recipe.state());
    let over = table::is_expired(&Table, (&packet.key, entry, recipe), &clock());
    let reverse = recipe.is_reverse();
    if !reverse && (over || (packet.flags.opens() && state.yields_to_syn())) {
        return false;
    }
    let direction = if reverse {
        Direction::Reverse
    } else {
        Direction::Forward
    };
    let next = state.after(direction, packet.flags);
    if next != state {
        table::set_state_of_flow(&Table, &packet.key, (entry, recipe), next as u8);
    }
    true
}

/// Makes both entries of the flow in `work`. Where another CPU was first, its flow is the one; its recipe
/// then is `there`. Gives whether there is an entry now: there may be no room, or another CPU at work in its place.
///
/// A packet that `opens` the flow had its turn, so it waits for the other CPU, and drops where that is not done in the end: by its hash it
/// might go to another backend than the other CPU's packet of the same flow. Any other goes by the hash that the other CPU goes by.
#[inline(always)]
pub(crate) fn make(work: &mut Work, opens: bool) -> Result<bool, DropReason> {
    let reply = table::reply(&work.key, work.backend_address, work.backend_port);
    let remembered = if table::overflows(&Table, &reply, &work.clock) {
        replies_of_backend(work)
    } else {
        Remembered::Nobodys
    };
    if remembered == Remembered::Anothers {
        return Err(DropReason::ReplyCollision);
    }
    let mut outcome = CONTENDED;
    for _ in 0..INSERT_TRIES {
        // SAFETY: borrowed for the call.
        outcome = unsafe { insert_flow(work) };
        if outcome != CONTENDED || !opens {
            break;
        }
    }
    match outcome {
        MADE => {
            for evicted in work.evicted() {
                stats::count_event(Event::of(evicted));
            }
            stats::count_new_flow(work.service, u32::from(work.backend));
            if remembered == Remembered::Its {
                table::forget_replies(&Table, work);
            }
            Ok(true)
        }
        EXISTING => {
            stats::count_event(Some(Event::LostInsert));
            Ok(true)
        }
        COLLISION => Err(DropReason::ReplyCollision),
        CONTENDED if opens => Err(DropReason::FlowContended),
        outcome => {
            let full = outcome == Outcome::Full as u32;
            stats::count_event(Some(if full {
                Event::Overflow
            } else {
                Event::Contended
            }));
            Ok(false)
        }
    }
}

/// Makes the recipe of a packet whose flow finds no room.
#[inline(always)]
pub(crate) fn make_without_entry(work: &mut Work) -> Result<(), DropReason> {
    // SAFETY: borrowed for the call.
    match unsafe { overflow_flow(work) } {
        MADE => Ok(()),
        COLLISION => Err(DropReason::ReplyCollision),
        _ => Err(DropReason::FlowContended),
    }
}

const MADE: u32 = Outcome::Made as u32;
const EXISTING: u32 = Outcome::Existing as u32;
const CONTENDED: u32 = Outcome::Contended as u32;
/// Inserts of a flow that another CPU is at, each of which waits for a lock: some microseconds in all.
const INSERT_TRIES: u32 = 8;
const COLLISION: u32 = Outcome::Collision as u32;

/// [`table::insert`]; gives the [`Outcome`].
///
/// A global function of the program (`no_mangle` keeps it one), which the verifier walks once and not at each call: all that
/// it knows there of `work` is its size, and that it may be null.
///
/// # Safety
/// `work` is null, or nobody else uses it meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn insert_flow(work: *mut Work) -> u32 {
    // SAFETY: the caller's.
    let Some(work) = (unsafe { work.as_mut() }) else {
        return Outcome::Contended as u32;
    };
    let outcome = table::insert(&Table, work);
    work.crowded = matches!(outcome, Outcome::Full);
    outcome as u32
}

/// [`table::overflow`], in the same way.
///
/// # Safety
/// As for [`insert_flow`].
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn overflow_flow(work: *mut Work) -> u32 {
    // SAFETY: the caller's.
    let work = unsafe { work.as_mut() };
    work.map_or(Outcome::Contended, |work| table::overflow(&Table, work)) as u32
}

/// [`table::whose_replies`], in the same way; gives the [`Remembered`].
///
/// # Safety
/// As for [`insert_flow`].
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn whose_replies(work: *mut Work) -> u32 {
    // SAFETY: the caller's.
    let work = unsafe { work.as_mut() };
    work.map_or(Remembered::Nobodys, |work| {
        table::whose_replies(&Table, work)
    }) as u32
}

/// Whether the packet's flow may be one that found no room.
#[inline(always)]
pub(crate) fn may_have_no_entry(work: &Work) -> bool {
    table::overflows(&Table, &work.key, &work.clock)
}

/// Whose replies would come from the backend in `work`.
#[inline(always)]
pub(crate) fn replies_of_backend(work: &mut Work) -> Remembered {
    const ITS: u32 = Remembered::Its as u32;
    const NOBODYS: u32 = Remembered::Nobodys as u32;
    // SAFETY: borrowed for the call.
    match unsafe { whose_replies(work) } {
        ITS => Remembered::Its,
        NOBODYS => Remembered::Nobodys,
        _ => Remembered::Anothers,
    }
}

/// Whether the packet is a reply of a flow that found no room; its recipe then is `there` of `work`.
#[inline(always)]
pub(crate) fn is_reply_without_entry(packet: &Packet, work: &mut Work) -> bool {
    match table::overflowed(&Table, &packet.key, &clock()) {
        Some(recipe) => {
            work.there = recipe;
            true
        }
        None => false,
    }
}

/// The time, and how long a second is.
#[inline(always)]
pub(crate) fn clock() -> Clock {
    Clock {
        now: now(),
        ticks_per_second: control::config().ticks_per_second(),
    }
}

/// Low 32 bits of `jiffies64`.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "ages are wrapping differences"
)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_jiffies64() as u32 }
}
