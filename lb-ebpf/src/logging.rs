//! What the program logs, through aya-log. The level is a load-time constant: a line below it leaves no instruction.

use aya_log_ebpf::{debug, info};
use lb_common::{
    abi::{FlowKey, Recipe},
    packet::{PacketView, Window},
    parse::{self, ETHERNET, Fragment, Network},
    verdict::DropReason,
};

use crate::{packet::Frame, rewrite::HEAD};

/// A flow was made.
#[inline(never)]
pub(crate) fn flow_made(frame: &Frame, key: &FlowKey, recipe: &Recipe) {
    debug!(
        frame.context(),
        "flow {:i}:{} -> {:i}:{} protocol {} to {:i}:{}",
        u32::from_be(key.source_word()),
        u16::from_be(key.source_port()),
        u32::from_be(key.destination_word()),
        u16::from_be(key.destination_port()),
        key.protocol(),
        u32::from_be(recipe.address()),
        u16::from_be(recipe.port())
    );
}

/// A packet was dropped. What is shown is read within the macro, so that nothing is read where nothing is logged.
#[inline(never)]
pub(crate) fn dropped(frame: &Frame, reason: DropReason) {
    info!(
        frame.context(),
        "dropped {:i}:{} -> {:i}:{} protocol {}: reason {}",
        u32::from_be(head::<26>(frame)),
        u16::from_be(port(frame, 0)),
        u32::from_be(head::<30>(frame)),
        u16::from_be(port(frame, 2)),
        head::<20>(frame).to_ne_bytes()[3],
        reason as u8
    );
}

/// Four bytes of the Ethernet and IPv4 headers.
#[inline(always)]
fn head<const AT: usize>(frame: &Frame) -> u32 {
    frame.window::<HEAD>(0).map_or(0, Window::u32::<AT>)
}

/// A port, `at` bytes into the transport header; 0 where there is none.
#[inline(always)]
fn port(frame: &Frame, at: usize) -> u16 {
    match parse::network(frame) {
        Network::Ipv4(ip) if !matches!(ip.fragment, Fragment::Later) => frame
            .window::<2>(ETHERNET + ip.header_length + at)
            .map_or(0, Window::u16::<0>),
        _ => 0,
    }
}
