//! The maps, by the names they are pinned under (`WORK` and `FOUND_SERVICES` are not); the control tables are in [`crate::control`]. `lb_common::abi` says what their bytes mean and who writes them.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, DevMap, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    abi::{
        Counters, Cursor, DEFAULT_FLOW_ENTRIES, FlowBucket, MAX_INTERFACES, MAX_RATE_LIMITS,
        MAX_SERVICES, MAX_SLOTS, NeighbourWanted, OVERFLOW_BUCKETS, PAIR, PairRow, RateWindow,
        ServiceKey, WAYS,
    },
    table::Work,
};

/// The agent maps the array, and publishes single words or only reads; the flag also aligns rows to the page.
const SHARED: usize = BPF_F_MMAPABLE as usize;
/// Keys of VIPs and services; each VIP has up to three marker keys beside its services.
const SERVICE_KEYS_MAX: usize = 4 * MAX_SERVICES as usize;
/// Logarithm of the number of services that a CPU remembers.
pub(crate) const FOUND_SERVICES_BITS: u32 = 6;
/// Bytes of the event ring.
const EVENTS_BYTES: usize = 1 << 16;

/// A service that this CPU found, or that there is none.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FoundService {
    /// Address, port and protocol of the packets, as in them.
    pub(crate) endpoint: u64,
    /// Of the keys that it was found by.
    pub(crate) keys_version: u64,
    /// Row of the service, or the one that none has.
    pub(crate) service: u32,
    pub(crate) padding: u32,
}

#[btf_map]
pub(crate) static SERVICE_KEYS: HashMap<ServiceKey, u32, SERVICE_KEYS_MAX> = HashMap::new();
#[btf_map]
pub(crate) static CURSORS: Array<Cursor, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
pub(crate) static SLOTS: Array<u64, { MAX_SLOTS as usize }, SHARED> = Array::new();
#[btf_map]
pub(crate) static FLOWS: Array<FlowBucket, { (DEFAULT_FLOW_ENTRIES / WAYS) as usize }, SHARED> =
    Array::new();
#[btf_map]
pub(crate) static FLOW_PAIRS: Array<PairRow, { (DEFAULT_FLOW_ENTRIES / PAIR) as usize }, SHARED> =
    Array::new();
#[btf_map]
pub(crate) static OVERFLOW: Array<FlowBucket, { OVERFLOW_BUCKETS as usize }, SHARED> = Array::new();
#[btf_map]
pub(crate) static OVERFLOW_PRINTS: Array<u32, { OVERFLOW_BUCKETS as usize }> = Array::new();
/// A row a CPU, of which the loader knows the number.
#[btf_map]
pub(crate) static COUNTERS: Array<Counters, 1, SHARED> = Array::new();
#[btf_map]
pub(crate) static RATE_LIMITS: PerCpuArray<RateWindow, { MAX_RATE_LIMITS as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static FOUND_SERVICES: PerCpuArray<FoundService, { 1 << FOUND_SERVICES_BITS }> =
    PerCpuArray::new();
#[btf_map]
pub(crate) static DEVICES: DevMap<{ MAX_INTERFACES as usize }> = DevMap::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<NeighbourWanted, EVENTS_BYTES> = RingBuf::new();

/// A row of a table within a map's value. The number is taken modulo the table's length, a power of two, so that the verifier sees
/// the row within.
#[inline(always)]
pub(crate) fn row_of<Row, const ROWS: usize>(table: *mut [Row; ROWS], number: u32) -> *mut Row {
    const { assert!(ROWS.is_power_of_two()) };
    table
        .cast::<Row>()
        .wrapping_add(number as usize & (ROWS - 1))
}
