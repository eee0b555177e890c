//! The flow of each packet, by the plan.

use aya_ebpf::{btf_maps::Array, macros::btf_map};

use crate::plan::Plan;

/// The plan of the run, one for all programs of the object.
#[btf_map]
pub(crate) static PLAN: Array<Plan, 1> = Array::new();

/// Chooses the flow of the next packet.
#[inline(always)]
pub(crate) fn pick(plan: &mut Plan, kind: usize) -> u64 {
    let kind = &plan.kinds[kind];
    if kind.random == 0 {
        let index = plan.next;
        plan.next = if index + 1 >= kind.flows {
            0
        } else {
            index + 1
        };
        return index;
    }
    // Knuth's 64-bit linear congruential generator (MMIX); only its upper half is random enough.
    plan.random = plan
        .random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    let word = plan.random >> 32;
    let any = (word * kind.flows) >> 32;
    let hot = ((word * u64::from(kind.hot_flows)) >> 32) * u64::from(kind.hot_stride);
    // Without a branch: the processor would mispredict it, more often in some rows than in others.
    let draw = (plan.random >> 22) & 0x3ff;
    let take_hot = (draw.cast_signed() - i64::from(kind.hot_share)) >> 63;
    any ^ ((any ^ hot) & take_hot.cast_unsigned())
}
