//! What the program logs, through aya-log. The level is a load-time constant: a line below it leaves no instruction.

use aya_log_ebpf::{debug, info};
use lb_common::{
    abi::{FlowKey, Recipe},
    verdict::DropReason,
};

use crate::packet::Frame;

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

/// A packet of a service found no backend.
#[inline(never)]
pub(crate) fn flow_refused(frame: &Frame, key: &FlowKey, reason: DropReason) {
    info!(
        frame.context(),
        "dropped {:i}:{} -> {:i}:{} protocol {}: reason {}",
        u32::from_be(key.source_word()),
        u16::from_be(key.source_port()),
        u32::from_be(key.destination_word()),
        u16::from_be(key.destination_port()),
        key.protocol(),
        reason as u8
    );
}
