//! How a new flow finds its slot. A scheduler only picks positions; the slots were compiled by the agent.

/// Round robin: flow number `cursor` of a service with `length` slots, `length` above 0.
#[must_use]
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder by a u32 fits one"
)]
pub const fn round_robin(cursor: u64, length: u32) -> u32 {
    (cursor % length as u64) as u32
}

/// By hash: the slot that a 5-tuple falls on, the same for as long as the slots are, and for each further `attempt` the
/// next one. Needs no state.
#[must_use]
#[inline(always)]
pub const fn by_hash(hash: u32, attempt: u32, length: u32) -> u32 {
    // The high half of the product: no division, and even for a hash that is (Lemire, "Fast random integer
    // generation in an interval", 2019).
    let first = (hash as u64 * length as u64) >> 32;
    round_robin(first + attempt as u64, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_visits_each_slot_in_turn() {
        let seen: std::vec::Vec<u32> = (0..7).map(|cursor| round_robin(cursor, 3)).collect();
        assert_eq!(seen, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn by_hash_stays_within_the_slots() {
        for length in [1, 2, 3, 4096] {
            assert_eq!(by_hash(0, 0, length), 0);
            assert_eq!(by_hash(u32::MAX, 0, length), length - 1);
        }
    }

    #[test]
    fn each_attempt_by_hash_is_at_another_slot() {
        for hash in [0, 0x8000_0000, u32::MAX] {
            let mut seen: std::vec::Vec<u32> =
                (0..4).map(|attempt| by_hash(hash, attempt, 4)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3]);
        }
    }
}
