//! Programs that tests and the bench load beside the data plane; they are no part of the product.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "a call would be measured along with what is called"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "a program's signature is what the macro asks for"
)]

#[path = "harness/calibration.rs"]
mod calibration;
#[path = "harness/frame.rs"]
mod frame;
#[path = "harness/live.rs"]
mod live;
#[path = "harness/pick.rs"]
mod pick;
#[path = "harness/plan.rs"]
mod plan;
#[path = "harness/race.rs"]
mod race;
#[path = "harness/race_plan.rs"]
mod race_plan;
#[path = "harness/replay.rs"]
mod replay;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

/// Passes every frame. A veth that receives XDP frames needs a program, and this is one.
#[xdp]
fn xdp_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
