//! Counters, per CPU: no two CPUs write the same word.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use lb_common::{
    abi::{Counters, FlowCounters, MAX_TABLE_EVENTS, RATE_LIMIT, Recipe},
    table::Event,
    verdict::Verdict,
};

use crate::{
    flow,
    maps::{COUNTERS, RATE_LIMITS, row_of},
};

/// This CPU's row of `COUNTERS`: no other writes it.
#[derive(Clone, Copy)]
pub(crate) struct CpuCounters(*mut Counters);

impl CpuCounters {
    /// The row; none where whoever loads the program made a map with too few.
    #[inline(always)]
    pub(crate) fn own() -> Option<Self> {
        // SAFETY: the helper takes nothing.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        COUNTERS.get_ptr_mut(cpu).map(Self)
    }

    /// Counts the end of a packet's walk.
    #[inline(always)]
    pub(crate) fn verdict(self, verdict: Verdict) {
        // SAFETY: within the row.
        unsafe { *row_of(&raw mut (*self.0).verdicts, verdict.index()) += 1 };
    }

    /// Counts a packet sent on, and its bytes.
    #[inline(always)]
    pub(crate) fn packet(self, recipe: &Recipe, reverse: bool, bytes: u64) {
        let direction = 2 * usize::from(reverse);
        self.both(recipe.service(), recipe.backend().into(), |row| {
            // SAFETY: packets and bytes of the two directions stand one pair after the other.
            unsafe {
                let pair = (&raw mut (*row).forward_packets).add(direction);
                *pair += 1;
                *pair.add(1) += bytes;
            }
        });
    }

    /// Counts for a service and for a backend.
    #[inline(always)]
    fn both(self, service: u32, backend: u32, count: impl Fn(*mut FlowCounters)) {
        // SAFETY: within the row.
        unsafe {
            count(row_of(&raw mut (*self.0).services, service));
            count(row_of(&raw mut (*self.0).backends, backend));
        }
    }
}

/// Counts what happened to the flow table.
#[inline(always)]
pub(crate) fn count_event(event: Option<Event>) {
    if let Some(event) = event
        && let Some(own) = CpuCounters::own()
    {
        // SAFETY: within the row.
        unsafe { *row_of(&raw mut (*own.0).table, event as u32) += 1 };
    }
}

const _: () = assert!(Event::ALL.len() <= MAX_TABLE_EVENTS as usize);

/// Counts a flow made.
#[inline(always)]
pub(crate) fn count_new_flow(service: u32, backend: u32) {
    if let Some(own) = CpuCounters::own() {
        // SAFETY: a word of the row.
        own.both(service, backend, |row| unsafe { (*row).new_flows += 1 });
    }
}

const _: () = assert!(offset_of!(FlowCounters, forward_packets) == 0);
const _: () = assert!(offset_of!(FlowCounters, forward_bytes) == 8);
const _: () = assert!(offset_of!(FlowCounters, reverse_packets) == 16);
const _: () = assert!(offset_of!(FlowCounters, reverse_bytes) == 24);

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
