//! The walk of a packet, one line a stage, in the order a packet passes them. No logic of its own.

use lb_common::verdict::{DropReason, Verdict};

use crate::{answer, flow, forward, ours, packet::Frame, rewrite, service};

/// Walks one frame to its verdict; `Err` is a verdict too, taken early.
#[inline(always)]
pub(crate) fn run(frame: &Frame) -> Result<Verdict, Verdict> {
    let ip = ours::check(frame)?;
    let work = service::work().ok_or(Verdict::Drop(DropReason::BrokenReference))?;
    forward::came_from(frame, work)?;
    let packet = ours::transport(frame, &ip)?;
    service::expect(&packet, work);
    if !flow::find(&packet, work)? && service::enter(&packet, work)? {
        // Before a backend is chosen, which would lose its turn to a packet that it never gets.
        answer::ttl(frame, &ip)?;
        service::admit(frame, &packet, work)?;
    }
    let recipe = &work.there;
    let route = forward::route(frame, recipe)?;
    if forward::needs_ttl(&route) {
        answer::ttl(frame, &ip)?;
    }
    rewrite::apply(frame, &packet, recipe, &route)?;
    forward::send(frame, recipe, &route)
}
