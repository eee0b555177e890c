//! Stage "forward": the way out, and the XDP action that a verdict means.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use lb_common::{
    abi::{ConfigRow, MAX_INTERFACES, NeighbourWanted, Recipe, ingress_print, word::Way},
    packet::{PacketView, Window},
    parse::{self, ETHERNET},
    table::Work,
    verdict::{DropReason, Verdict},
};

use crate::{
    control::{self, Backend, Interface},
    maps::{DEVICES, EVENTS},
    packet::Frame,
    stats::{self, CpuCounters},
};

/// The way out of a packet.
pub(crate) enum Route {
    /// To this MAC address, from ours (both in the low 48 bits), out of the interface of this slot and index.
    Out {
        to: u64,
        from: u64,
        slot: u32,
        ifindex: u32,
    },
    /// Up the stack, which resolves the neighbour and delivers.
    Host,
}

/// The way towards the backend, or for a reply towards the client.
#[inline(always)]
pub(crate) fn route(frame: &Frame, recipe: &Recipe) -> Result<Route, Verdict> {
    let way = if recipe.is_reverse() {
        recipe.way
    } else {
        match way(control::backend(recipe.backend())) {
            Some(way) => way,
            None => return unresolved(recipe.backend()),
        }
    };
    let slot = Way::slot(way);
    let row = control::interface(slot);
    let ifindex = row.ifindex();
    if ifindex == 0 {
        return Err(Verdict::Drop(DropReason::NoInterface));
    }
    if is_too_large(frame.length(), row, frame.ifindex()) {
        return Err(Verdict::Drop(DropReason::ExceedsMtu));
    }
    Ok(Route::Out {
        to: way,
        from: row.mac(),
        slot,
        ifindex,
    })
}

/// Whether a frame of so many bytes that came in by the interface of index `came_from` can't leave by another one. The kernel would drop it
/// where no program sees it. Back where it came from it may be larger than the MTU: generic mode hands over what was merged, and the
/// kernel parts it again.
#[inline(always)]
pub(crate) fn is_too_large(length: usize, out: Interface, came_from: u32) -> bool {
    length > out.max_frame() as usize && out.ifindex() != came_from
}

/// The host counts the hop itself where the packet goes up the stack.
#[inline(always)]
pub(crate) const fn needs_ttl(route: &Route) -> bool {
    matches!(route, Route::Out { .. })
}

/// The way to a backend is not known: the agent is asked to probe, and a host that forwards delivers meanwhile.
#[inline(never)]
fn unresolved(backend: u16) -> Result<Route, Verdict> {
    if stats::within_rate(stats::Limit::Events)
        && let Some(mut event) = EVENTS.reserve(0)
    {
        event.write(NeighbourWanted {
            backend: backend.into(),
            padding: 0,
        });
        event.submit(0);
    }
    if control::config().flags() & ConfigRow::HOST_FORWARDS != 0 {
        Ok(Route::Host)
    } else {
        Err(Verdict::Drop(DropReason::NoNeighbour))
    }
}

/// Sends a rewritten packet and counts it.
#[inline(always)]
pub(crate) fn send(frame: &Frame, recipe: &Recipe, route: &Route) -> Result<Verdict, Verdict> {
    let verdict = match route {
        Route::Host => Verdict::PassRewritten,
        Route::Out { slot, ifindex, .. } => leave(*slot, *ifindex, frame.ifindex())?,
    };
    if let Some(counters) = CpuCounters::own() {
        counters.packet(recipe, recipe.is_reverse(), frame.length() as u64);
    }
    Ok(verdict)
}

/// Out of the interface of a slot and index; the packet came in by the one of index `came_from`.
#[inline(always)]
pub(crate) fn leave(slot: u32, ifindex: u32, came_from: u32) -> Result<Verdict, Verdict> {
    if ifindex == came_from {
        return Ok(Verdict::Transmit);
    }
    match DEVICES.redirect(slot, 0) {
        Ok(_) => Ok(Verdict::Redirect),
        Err(_) => Err(Verdict::Drop(DropReason::NoInterface)),
    }
}

/// The way in force towards a backend, where it is known.
#[inline(always)]
pub(crate) fn way(backend: Backend) -> Option<u64> {
    let way = backend.way();
    Way::is_resolved(way).then_some(way)
}

/// Notes where the frame came from, and the way back there. What is not addressed to our MAC address passes: a promiscuous interface also
/// receives the frames of its neighbours, and a switch may flood them.
#[inline(always)]
pub(crate) fn came_from(frame: &Frame, work: &mut Work) -> Result<(), Verdict> {
    let slot = ingress_slot(frame);
    let window = frame.window::<ETHERNET>(0).ok_or(Verdict::Pass)?;
    if !parse::is_for(window, control::interface(slot.into()).mac()) {
        return Err(Verdict::Pass);
    }
    work.ingress_print = ingress_print(window.u64::<6>(), frame.ifindex());
    work.way = Way::back(work.ingress_print, slot);
    Ok(())
}

/// Slot of the interface that received the frame; 0, a row without an interface, where it is not one of ours.
#[inline(never)]
pub(crate) fn ingress_slot(frame: &Frame) -> u8 {
    let interfaces = control::config().interfaces();
    let mut slot = 1;
    while slot < MAX_INTERFACES && slot <= interfaces {
        if control::interface(slot).ifindex() == frame.ifindex() {
            #[expect(clippy::cast_possible_truncation, reason = "a small number of rows")]
            return slot as u8;
        }
        slot += 1;
    }
    0
}

/// Counts the end of a packet's walk, and gives its XDP action.
#[inline(always)]
pub(crate) fn end(verdict: Verdict) -> u32 {
    if let Some(counters) = CpuCounters::own() {
        counters.verdict(verdict);
    }
    action(verdict)
}

/// The XDP action of a verdict.
#[inline(always)]
pub(crate) const fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass | Verdict::PassRewritten => XDP_PASS,
        Verdict::Transmit | Verdict::EchoReply | Verdict::TimeExceeded => XDP_TX,
        Verdict::Redirect => XDP_REDIRECT,
        Verdict::Drop(_) => XDP_DROP,
    }
}
