//! The XDP data plane. `pipeline` is its table of contents: one line for each stage a packet passes.
//!
//! Entry points: [`lb`] for packets, [`maintenance`](maintenance::maintenance) for commands of the agent, and
//! [`announce`](announce::announce) for frames of the agent.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "a call costs the packet path more than the instructions it saves"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key or value handed to a map by value is copied to the stack, of which there are 512 bytes"
)]

mod announce;
mod answer;
mod control;
mod fast_path;
mod flow;
mod forward;
mod logging;
mod maintenance;
mod maps;
mod ours;
mod packet;
mod pipeline;
mod rewrite;
mod schedule;
mod service;
mod stats;
mod table;

use aya_ebpf::{macros::xdp, programs::XdpContext};
use lb_common::verdict::Verdict;

/// Every frame that an attached interface receives.
#[xdp]
fn lb(context: XdpContext) -> u32 {
    let frame = packet::Frame::new(context);
    match fast_path::walk(&frame) {
        Some(action) => action,
        None => slow_path(&frame),
    }
}

/// The whole pipeline. Its own function, so that the fast path has the registers and the stack for itself.
#[inline(never)]
fn slow_path(frame: &packet::Frame) -> u32 {
    let (Ok(verdict) | Err(verdict)) = pipeline::run(frame);
    if let Verdict::Drop(reason) = verdict {
        logging::dropped(frame, reason);
    }
    end(verdict)
}

/// [`forward::end`], which the verifier (6.18) would walk anew for every place that a verdict comes from: 164,920 instructions with the
/// debug log instead of 152,093.
#[inline(never)]
fn end(verdict: Verdict) -> u32 {
    forward::end(verdict)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call its GPL-only functions.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
