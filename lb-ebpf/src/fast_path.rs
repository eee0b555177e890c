//! The fast path: a packet in the shape that nearly all have, of a known flow that it does not change.
//!
//! It decides what the stages of [`crate::pipeline`] would decide, in one straight line; whatever is not plain, or has
//! to be thought about, it leaves to them untouched. Nothing here is a call but the redirect.

use lb_common::{
    abi::{Recipe, ingress_print, word::Way},
    flow,
    packet::{PacketView, Window},
    parse::{self, PLAIN, TCP_MIN, UDP_MIN},
    table::{self, Cells},
    verdict::Verdict,
};

use crate::{
    control,
    flow::now,
    forward, ours,
    packet::{Frame, FrameWindow},
    rewrite::{self, HEAD},
    stats::CpuCounters,
    table::{Entry, Table},
};

/// The XDP action of a packet sent on, or of one that is not ours; `None` leaves it to the pipeline.
#[inline(always)]
pub(crate) fn walk(frame: &Frame) -> Option<u32> {
    let window = frame.window::<PLAIN>(0)?;
    if !parse::is_ipv4(window) {
        return Some(forward::end(Verdict::Pass));
    }
    // Each protocol has its own copy of the code, in which nothing has to be remembered or asked again.
    match parse::plain_protocol(window)? {
        parse::TCP => walk_of(frame, window, parse::TCP),
        _ => walk_of(frame, window, parse::UDP),
    }
}

#[inline(always)]
fn walk_of(frame: &Frame, window: FrameWindow<PLAIN>, protocol: u8) -> Option<u32> {
    let key = parse::plain_key(window, protocol);
    if !ours::may_be_served(&key) {
        return Some(forward::end(Verdict::Pass));
    }
    let length = frame.length();
    let ifindex = frame.ifindex();
    if !parse::is_for(window, control::own_mac(ifindex))
        || !parse::goes_on(window, protocol, length)
    {
        return None;
    }
    // Before the search, because a call leaves nothing in most registers.
    let packet = Packet {
        window,
        protocol,
        length,
        ifindex,
        now: now(),
    };
    let (entry, recipe) = table::find_near(&Table, &key, protocol == parse::UDP)?;
    match recipe.role() {
        Recipe::ESTABLISHED_FORWARD => {
            let way = packet.way_to_backend(&recipe)?;
            packet.send(entry, &recipe, false, way)
        }
        Recipe::ESTABLISHED_REVERSE => packet.send(entry, &recipe, true, recipe.way),
        _ => None,
    }
}

/// A packet of a flow, in the plain shape.
struct Packet {
    window: FrameWindow<PLAIN>,
    protocol: u8,
    /// Of the frame, in bytes.
    length: usize,
    /// Of the interface that received it.
    ifindex: u32,
    /// Ticks.
    now: u32,
}

impl Packet {
    /// The way to the flow's backend, if that still is the tenant of its row and the client has not moved.
    #[inline(always)]
    fn way_to_backend(&self, recipe: &Recipe) -> Option<u64> {
        let backend = control::backend(recipe.backend());
        if backend.generation() != recipe.backend_generation()
            || ingress_print(self.window.u64::<6>(), self.ifindex) != recipe.way
        {
            return None;
        }
        forward::way(backend)
    }

    /// Rewrites the packet and sends it on its way.
    #[inline(always)]
    fn send(self, entry: Entry, recipe: &Recipe, reverse: bool, way: u64) -> Option<u32> {
        let interface = control::interface(Way::slot(way));
        let out = interface.ifindex();
        if out == 0 || forward::is_too_large(self.length, interface, self.ifindex) {
            return None;
        }
        if self.now != recipe.last_seen() {
            if self.now.wrapping_sub(recipe.last_seen()) >= flow::LONG_SILENCE_TICKS {
                return None;
            }
            entry.touch(self.now);
        }
        let head = self.window.part::<0, HEAD>();
        rewrite::head(head, recipe, reverse, way, interface.mac());
        if self.protocol == parse::TCP {
            let segment = self.window.part::<HEAD, TCP_MIN>();
            rewrite::segment(segment, recipe, reverse);
        } else {
            let datagram = self.window.part::<HEAD, UDP_MIN>();
            rewrite::datagram(datagram, recipe, reverse);
        }
        let verdict = match forward::leave(Way::slot(way), out, self.ifindex) {
            Ok(verdict) => verdict,
            Err(verdict) => return Some(forward::end(verdict)),
        };
        if let Some(counters) = CpuCounters::own() {
            counters.packet(recipe, reverse, self.length as u64);
            counters.verdict(verdict);
        }
        Some(forward::action(verdict))
    }
}
