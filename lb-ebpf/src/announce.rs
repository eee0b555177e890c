//! Sends a frame that the agent hands over, run with `BPF_PROG_TEST_RUN`: the packet is the frame, and the context
//! names the interface. It leaves by the interface's queue like any other of the host's, in native and generic mode
//! alike, and the agent needs no packet socket (`CAP_NET_RAW`) for gratuitous ARP.

use aya_ebpf::{macros::classifier, programs::TcContext};

/// Sends the frame out of the interface of the context; the negated error number where that is refused.
#[classifier]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the entry point hands the context over"
)]
#[expect(clippy::cast_possible_truncation, reason = "an error number is small")]
fn announce(context: TcContext) -> i32 {
    // SAFETY: the kernel hands the context over for the time of the call.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    match context.clone_redirect(ifindex, 0) {
        Ok(()) => 0,
        Err(error) => error as i32,
    }
}
