//! Runs a program on packets that are new each time.
//!
//! `BPF_PROG_TEST_RUN` with `repeat` does not restore the frame, so from the second round on a program that rewrites
//! would be measured on its own output. This one writes the whole frame back before each packet, puts in the flow that
//! the plan picks, calls the program under test, and counts what it said. With [`floor`] in the place of the program
//! under test the same work is done but for that program: the difference is what the program costs.
//!
//! A tail call from a function that was itself called ends in that function's caller (x86 since 5.10), so one round
//! runs [`PACKETS`] packets, and what the kernel does around a round counts for an eighth.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX},
    btf_maps::{PerCpuArray, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    frame::Frame,
    pick::{PLAN, pick},
    plan::{PACKETS, Plan, Tally},
};

#[btf_map]
static TALLY: PerCpuArray<Tally, 1> = PerCpuArray::new();
/// The program under test.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// One round.
#[xdp]
fn replay(context: XdpContext) -> u32 {
    let (Some(plan), Some(tally)) = (PLAN.get_ptr_mut(0), TALLY.get_ptr_mut(0)) else {
        return XDP_ABORTED;
    };
    // SAFETY: rows just looked up, the one this program's alone while it runs, the other this CPU's.
    let (plan, tally) = unsafe { (&mut *plan, &mut *tally) };
    for _ in 1..PACKETS {
        if packet(&context, plan, tally, 0).is_none() {
            return XDP_ABORTED;
        }
    }
    match packet(&context, plan, tally, 1) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}

/// Does nothing, in the place of the program under test.
#[xdp]
fn floor(_: XdpContext) -> u32 {
    XDP_TX
}

#[inline(always)]
fn packet(context: &XdpContext, plan: &mut Plan, tally: &mut Tally, kind: usize) -> Option<()> {
    let flow = pick(plan, kind);
    let kind_of_packet = &plan.kinds[kind];
    Frame::of(context)?.write(kind_of_packet, flow);
    let action = under_test(context.as_ptr());
    tally.actions[action as usize & (Tally::ROWS - 1)] += 1;

    // The program may have moved the frame; its old bounds are void.
    let left = Frame::of(context)?;
    let address = if kind_of_packet.reverse == 0 {
        left.get::<u32, 30>()
    } else {
        left.get::<u32, 26>()
    };
    tally.strays[kind] += u64::from(address != kind_of_packet.rewritten.of(flow));
    Some(())
}

/// Calls the program under test. Its own function, so that the tail call comes back here.
#[inline(never)]
pub(crate) fn under_test(context: *mut c_void) -> u32 {
    // SAFETY: nothing lives here that would have to be dropped.
    unsafe { UNDER_TEST.tail_call(&XdpContext::new(context.cast()), 0) };
    let not_reached: u64;
    // SAFETY: loads a constant. In assembly, because a compiler that knew the only value to be returned here would
    // not look at what the tail call returns.
    unsafe { asm!("{0} = 7", out(reg) not_reached) };
    #[expect(clippy::cast_possible_truncation, reason = "7")]
    let action = not_reached as u32;
    action
}
