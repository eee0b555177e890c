//! What a machine is measured by: the hit in a hash table that every other balancer begins with.

use aya_ebpf::{
    bindings::xdp_action::{XDP_PASS, XDP_TX},
    btf_maps::LruHashMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::frame::Frame;

/// Keys are the addresses, ports and sequence number of a packet, 16 bytes.
///
/// The bench makes it as large as the flow table of a busy balancer; who loads the object for something else does not
/// pay for that.
#[btf_map]
static CALIBRATION: LruHashMap<[u32; 4], u64, 1> = LruHashMap::new();

/// `XDP_TX` for a packet whose key is there, otherwise `XDP_PASS`.
#[xdp]
fn lru_lookup(context: XdpContext) -> u32 {
    let Some(frame) = Frame::of(&context) else {
        return XDP_PASS;
    };
    let key = [
        frame.get::<u32, 26>(),
        frame.get::<u32, 30>(),
        frame.get::<u32, 34>(),
        frame.get::<u32, 38>(),
    ];
    match CALIBRATION.get_ptr(key) {
        Some(_) => XDP_TX,
        None => XDP_PASS,
    }
}
