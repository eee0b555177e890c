//! Programs of live traffic: one that makes frames, one that takes them, and the least that a balancer could do.
//!
//! [`generate`] is run by `BPF_PROG_TEST_RUN` with live frames: what it returns is carried out, so each packet leaves
//! the interface that the run names. The others are attached.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
    btf_maps::{DevMap, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    frame::Frame,
    pick::{PLAN, pick},
    plan::Arrived,
};

#[btf_map]
static ARRIVED: PerCpuArray<Arrived, 1> = PerCpuArray::new();
/// Where [`cross`] sends everything.
#[btf_map]
static ACROSS: DevMap<1> = DevMap::new();

/// `EtherType` of IPv4, as it lies in memory.
const IPV4: u16 = 0x0800u16.to_be();

/// Sends the next packet of the plan, a UDP datagram.
#[xdp]
fn generate(context: XdpContext) -> u32 {
    let (Some(plan), Some(frame)) = (PLAN.get_ptr_mut(0), Frame::of(&context)) else {
        return XDP_ABORTED;
    };
    // SAFETY: the row was just looked up, and one run at a time uses it.
    let plan = unsafe { &mut *plan };
    let flow = pick(plan, 0);
    frame.write(&plan.kinds[0], flow);
    frame.seal_udp(&plan.kinds[0], flow);
    XDP_TX
}

/// Counts what arrives, and ends it.
#[xdp]
fn sink(context: XdpContext) -> u32 {
    let (Some(plan), Some(arrived)) = (PLAN.get_ptr(0), ARRIVED.get_ptr_mut(0)) else {
        return XDP_ABORTED;
    };
    // SAFETY: rows just looked up; the second is this CPU's own.
    let (plan, arrived) = unsafe { (&*plan, &mut *arrived) };
    match Frame::of(&context) {
        Some(frame)
            if frame.get::<u16, 12>() == IPV4
                && u64::from(frame.get::<u16, 36>()) == plan.wanted_port =>
        {
            arrived.wanted += 1;
        }
        _ => arrived.others += 1,
    }
    XDP_DROP
}

/// The least that a balancer with one interface could do: the frame goes back where it came from.
#[xdp]
fn reflect(context: XdpContext) -> u32 {
    match Frame::of(&context) {
        Some(frame) => {
            frame.swap_macs();
            XDP_TX
        }
        None => XDP_DROP,
    }
}

/// The least that a balancer with two interfaces could do: the frame leaves by the other one.
#[xdp]
fn cross(context: XdpContext) -> u32 {
    match Frame::of(&context) {
        Some(frame) => {
            frame.swap_macs();
            ACROSS.redirect(0, 0).unwrap_or(XDP_ABORTED)
        }
        None => XDP_DROP,
    }
}
