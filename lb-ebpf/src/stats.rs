//! Counters, per CPU: no two CPUs write the same word.

use core::{arch::asm, mem::offset_of};

use lb_common::{
    abi::{FlowCounters, RATE_LIMIT, Recipe},
    table::Event,
    verdict::Verdict,
};

use crate::{
    flow,
    maps::{COUNTERS_BACKENDS, COUNTERS_SERVICES, COUNTERS_TABLE, COUNTERS_VERDICTS, RATE_LIMITS},
};

/// Counts the end of a packet's walk.
#[inline(always)]
pub(crate) fn count_verdict(verdict: Verdict) {
    if let Some(counter) = COUNTERS_VERDICTS.get_ptr_mut(verdict.index()) {
        // SAFETY: this CPU's own word.
        unsafe { *counter += 1 };
    }
}

/// Counts what happened to the flow table.
#[inline(always)]
pub(crate) fn count_event(event: Option<Event>) {
    let Some(event) = event else { return };
    if let Some(counter) = COUNTERS_TABLE.get_ptr_mut(event as u32) {
        // SAFETY: this CPU's own word.
        unsafe { *counter += 1 };
    }
}

/// Counts a flow made.
#[inline(always)]
pub(crate) fn count_new_flow(service: u32, backend: u32) {
    both(service, backend, |row| row.new_flows += 1);
}

/// Counts a packet sent on, and its bytes.
#[inline(always)]
pub(crate) fn count_packet(recipe: &Recipe, reverse: bool, bytes: u64) {
    let direction = usize::from(reverse);
    both(recipe.service(), u32::from(recipe.backend()), |row| {
        // SAFETY: packets and bytes of the two directions stand one pair after the other.
        unsafe {
            let pair = (&raw mut row.forward_packets).add(2 * direction);
            *pair += 1;
            *pair.add(1) += bytes;
        }
    });
}

const _: () = assert!(offset_of!(FlowCounters, forward_packets) == 0);
const _: () = assert!(offset_of!(FlowCounters, forward_bytes) == 8);
const _: () = assert!(offset_of!(FlowCounters, reverse_packets) == 16);
const _: () = assert!(offset_of!(FlowCounters, reverse_bytes) == 24);

/// The rows of a service and of a backend.
#[inline(always)]
fn both(service: u32, backend: u32, count: impl Fn(&mut FlowCounters)) {
    if let Some(row) = COUNTERS_SERVICES.get_ptr_mut(service) {
        // SAFETY: this CPU's own row.
        count(unsafe { &mut *row });
    }
    if let Some(row) = COUNTERS_BACKENDS.get_ptr_mut(backend) {
        // SAFETY: this CPU's own row.
        count(unsafe { &mut *row });
    }
}

/// What a CPU may do only so often; rows of `RATE_LIMITS`.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// ICMP errors sent.
    Errors = 0,
    /// Events for the agent.
    Events = 1,
}

/// Takes one from this CPU's allowance for the current second.
#[inline(always)]
pub(crate) fn within_rate(limit: Limit) -> bool {
    let clock = flow::clock();
    let Some(window) = RATE_LIMITS.get_ptr_mut(limit as u32) else {
        return false;
    };
    // SAFETY: this CPU's own row.
    let window = unsafe { &mut *window };
    if clock.now.wrapping_sub(window.since) >= clock.ticks_per_second {
        window.since = clock.now;
        window.sent = 0;
    }
    if window.sent >= RATE_LIMIT {
        return false;
    }
    window.sent += 1;
    true
}

/// Adds to a word that CPUs share and returns what it held.
///
/// In assembly because `core::sync::atomic` has no read-modify-write for this target.
///
/// # Safety
/// `word` is an aligned word of a map row.
#[inline(always)]
pub(crate) unsafe fn fetch_add(word: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    // SAFETY: the caller's; the instruction is the only access.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    }
    value
}
