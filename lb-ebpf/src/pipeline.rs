//! The walk of a packet, one line a stage, in the order a packet passes them. No logic of its own.

use lb_common::verdict::Verdict;

use crate::{
    answer,
    flow::{self, Lookup},
    forward, ours,
    packet::Frame,
    rewrite, service,
};

/// Walks one frame to its verdict; `Err` is a verdict too, taken early.
#[inline(always)]
pub(crate) fn run(frame: &Frame) -> Result<Verdict, Verdict> {
    let ip = ours::check(frame)?;
    let packet = ours::transport(frame, &ip)?;
    let recipe = match flow::find(frame, &packet)? {
        Lookup::Hit(recipe) => recipe,
        Lookup::Miss(over) => service::enter(frame, &packet, over)?,
    };
    let route = forward::route(&recipe)?;
    if forward::needs_ttl(&route) {
        answer::ttl(frame, &ip)?;
    }
    rewrite::apply(frame, &packet, &recipe, &route)?;
    forward::send(frame, &recipe, &route)
}
