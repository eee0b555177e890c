//! Commands of the agent, run with `BPF_PROG_TEST_RUN`: the packet is the command and, afterwards, the answer.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
    helpers::generated::bpf_jiffies64,
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    abi::command,
    packet::{PacketView, Window},
    table,
};

use crate::{flow, packet::Frame, table::Table};

/// Carries out the command in the first byte of the packet; `XDP_ABORTED` says that there is no such command.
#[xdp]
pub(crate) fn maintenance(context: XdpContext) -> u32 {
    let frame = Frame::new(context);
    match run(&frame) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}

#[inline(always)]
fn run(frame: &Frame) -> Option<()> {
    let window = frame.window::<{ command::LENGTH }>(0)?;
    match window.u8::<{ command::CODE }>() {
        command::CLOCK => {
            // SAFETY: the helper takes nothing.
            let ticks = unsafe { bpf_jiffies64() };
            #[expect(clippy::cast_possible_truncation, reason = "written as two halves")]
            let (low, high) = (ticks as u32, (ticks >> 32) as u32);
            window.put_u32::<{ command::ANSWER }>(low);
            window.put_u32::<{ command::ANSWER + 4 }>(high);
            Some(())
        }
        command::EXPIRE => {
            let bucket = window.u32::<{ command::BUCKET }>();
            table::expire(&Table, bucket, &flow::clock());
            Some(())
        }
        _ => None,
    }
}
