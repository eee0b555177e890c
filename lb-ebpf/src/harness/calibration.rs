//! What a machine is measured by: the hit in a hash table that every other balancer begins with, and the wait for a line
//! of memory that no cache holds.

use aya_ebpf::{
    Global,
    bindings::{
        BPF_F_MMAPABLE,
        xdp_action::{XDP_PASS, XDP_TX},
    },
    btf_maps::{Array, LruHashMap},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{abi::FlowKey, table::hash};

use crate::frame::Frame;

/// Keys are the addresses, ports and sequence number of a packet, 16 bytes.
///
/// The bench makes it as large as the flow table of a busy balancer; who loads the object for something else does not
/// pay for that.
#[btf_map]
static CALIBRATION: LruHashMap<[u32; 4], u64, 1> = LruHashMap::new();

/// The same, with many keys in it.
#[btf_map]
static CALIBRATION_OF_MANY: LruHashMap<[u32; 4], u64, 1> = LruHashMap::new();

/// Cache lines; like the table above, large in the bench alone.
#[btf_map]
static LINES: Array<[u64; 8], 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Lines less one, a power of two less one; set when the program is loaded.
#[unsafe(no_mangle)]
static LINE_MASK: Global<u32> = Global::new(0);

/// Reads one line that the packet's addresses and ports choose; `XDP_TX`.
///
/// Which line is next depends on what this one holds (zero), so that the processor waits for it as it does where much is
/// to be done with it.
#[xdp]
fn line_read(context: XdpContext) -> u32 {
    let (Some(frame), Some(first)) = (Frame::of(&context), LINES.get_ptr_mut(0)) else {
        return XDP_PASS;
    };
    // SAFETY: the last word of the first line, which this program alone uses, on one CPU.
    let before = unsafe { (*first)[7] };
    let key = FlowKey {
        addresses: frame.get::<u64, 26>(),
        rest: frame.get::<u32, 34>().into(),
    };
    let Some(line) = LINES.get_ptr(hash(&key, before) & LINE_MASK.load()) else {
        return XDP_PASS;
    };
    // SAFETY: rows just looked up.
    unsafe { (*first)[7] = line.cast::<u64>().read_volatile() };
    XDP_TX
}

/// `XDP_TX` for a packet whose key is there, otherwise `XDP_PASS`.
#[xdp]
fn lru_lookup(context: XdpContext) -> u32 {
    look_up(&context, &CALIBRATION)
}

/// The same in the table with many keys.
#[xdp]
fn lru_lookup_of_many(context: XdpContext) -> u32 {
    look_up(&context, &CALIBRATION_OF_MANY)
}

#[inline(always)]
fn look_up(context: &XdpContext, table: &LruHashMap<[u32; 4], u64, 1>) -> u32 {
    let Some(frame) = Frame::of(context) else {
        return XDP_PASS;
    };
    let key = [
        frame.get::<u32, 26>(),
        frame.get::<u32, 30>(),
        frame.get::<u32, 34>(),
        frame.get::<u32, 38>(),
    ];
    match table.get_ptr(key) {
        Some(_) => XDP_TX,
        None => XDP_PASS,
    }
}
