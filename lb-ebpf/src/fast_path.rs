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
    flow::now,
    forward,
    maps::{BACKENDS, INTERFACES},
    ours,
    packet::Frame,
    rewrite::{self, HEAD},
    schedule, stats,
    table::Table,
};

/// The XDP action of a packet sent on, or of one that is not ours; `None` leaves it to the pipeline.
#[inline(always)]
pub(crate) fn walk(frame: &Frame) -> Option<u32> {
    let window = frame.window::<PLAIN>(0)?;
    let length = frame.length();
    if !parse::is_unicast_ipv4(window) {
        return Some(forward::end(Verdict::Pass));
    }
    let protocol = parse::plain_protocol(window)?;
    let key = parse::plain_key(window, protocol);
    if !ours::may_be_served(&key) {
        return Some(forward::end(Verdict::Pass));
    }
    if !parse::goes_on(window, protocol, length) {
        return None;
    }
    let (entry, recipe) = table::find_near(&Table, &key)?;
    let ifindex = frame.ifindex();
    let way = match recipe.role() {
        Recipe::ESTABLISHED_REVERSE => recipe.way,
        Recipe::ESTABLISHED_FORWARD => {
            let print = ingress_print(window.u64::<6>(), ifindex);
            let backend = BACKENDS.get(u32::from(recipe.backend()))?;
            if schedule::state(backend).generation != recipe.backend_generation()
                || print != recipe.way
            {
                return None;
            }
            forward::way(backend)?
        }
        _ => return None,
    };
    let interface = INTERFACES.get(Way::slot(way))?;
    let out = forward::ifindex(interface);
    let now = now();
    if now != recipe.last_seen() {
        if now ^ recipe.last_seen() >= flow::PARTNER_TICKS {
            return None;
        }
        entry.touch(now);
    }
    let verdict = if out == ifindex {
        Verdict::Transmit
    } else {
        // Row 0, which is no interface, has no device either.
        forward::redirect(Way::slot(way)).ok()?
    };

    rewrite::head(
        window.part::<0, HEAD>(),
        &recipe,
        way,
        forward::mac(interface),
    );
    if protocol == parse::TCP {
        rewrite::segment(window.part::<HEAD, TCP_MIN>(), &recipe);
    } else {
        rewrite::datagram(window.part::<HEAD, UDP_MIN>(), &recipe);
    }
    stats::count_packet(&recipe, length as u64);
    Some(forward::end(verdict))
}
