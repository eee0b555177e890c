//! Which maps are pinned, and whether a pinned map is one of ours: opening a pin checks nothing.

use std::{fmt, path::Path};

use aya::maps::{MapError, MapInfo, MapType};
use lb_common::abi::{
    Control, Counters, Cursor, FlowBucket, MAX_INTERFACES, MAX_RATE_LIMITS, MAX_SERVICES,
    MAX_SLOTS, OVERFLOW_BUCKETS, PairRow, RateWindow, ServiceKey, WAYS,
};

use super::{control::CONTROL, counters::COUNTERS};

/// `BPF_F_MMAPABLE`.
const SHARED: u32 = 1 << 10;
/// `BPF_F_RDONLY_PROG`, which the kernel sets on every devmap.
const READ_ONLY: u32 = 1 << 7;
/// Name of the flow table, whose size the configuration gives.
pub(super) const FLOWS: &str = "FLOWS";
/// Name of the map with a row for each pair of the flow table's buckets.
pub(super) const FLOW_PAIRS: &str = "FLOW_PAIRS";
/// Name of the map of replies without an entry.
pub(super) const OVERFLOW: &str = "OVERFLOW";

/// What differs where a map has more or fewer rows.
pub(super) const NUMBER_OF_ENTRIES: &str = "number of entries";

/// Bytes of the event ring.
const EVENTS: u32 = 1 << 16;

/// What a map must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// Its name, and that of its pin.
    pub(super) name: &'static str,
    kind: MapType,
    key_size: u32,
    value_size: u32,
    pub(super) max_entries: u32,
    flags: u32,
}

/// How a pinned map differs from what this version uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What differs.
    pub what: &'static str,
    /// What the pinned map has.
    pub found: u32,
    /// What this version needs.
    pub needed: u32,
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "its {} is {} instead of {}",
            self.what, self.found, self.needed
        )
    }
}

/// Buckets of a flow table with room for at least so many entries: a power of two, so that a mask takes a hash to one.
pub(super) fn buckets(flow_entries: u32) -> u32 {
    flow_entries.div_ceil(WAYS).max(2).next_power_of_two()
}

/// Every pinned map, where the flow table has so many entries and the machine so many CPUs.
pub(super) fn shapes(flow_entries: u32, cpus: u32) -> Vec<Shape> {
    let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let array = |name, kind, value_size, max_entries, flags| Shape {
        name,
        kind,
        key_size: 4,
        value_size: bytes(value_size),
        max_entries,
        flags,
    };
    let own = |name, value_size, rows| array(name, MapType::Array, value_size, rows, 0);
    let shared = |name, value_size, rows| array(name, MapType::Array, value_size, rows, SHARED);
    let per_cpu = |name, value_size, rows| array(name, MapType::PerCpuArray, value_size, rows, 0);
    let table = |name, kind, key_size, value_size, max_entries| Shape {
        name,
        kind,
        key_size: bytes(key_size),
        value_size: bytes(value_size),
        max_entries,
        flags: 0,
    };
    vec![
        shared(CONTROL, size_of::<Control>(), 1),
        table(
            "SERVICE_KEYS",
            MapType::Hash,
            size_of::<ServiceKey>(),
            size_of::<u32>(),
            4 * MAX_SERVICES,
        ),
        own("CURSORS", size_of::<Cursor>(), MAX_SERVICES),
        shared("SLOTS", size_of::<u64>(), MAX_SLOTS),
        shared(FLOWS, size_of::<FlowBucket>(), buckets(flow_entries)),
        shared(FLOW_PAIRS, size_of::<PairRow>(), buckets(flow_entries) / 2),
        shared(OVERFLOW, size_of::<FlowBucket>(), OVERFLOW_BUCKETS),
        own("OVERFLOW_PRINTS", size_of::<u32>(), OVERFLOW_BUCKETS),
        shared(COUNTERS, size_of::<Counters>(), cpus),
        per_cpu("RATE_LIMITS", size_of::<RateWindow>(), MAX_RATE_LIMITS),
        array("DEVICES", MapType::DevMap, 8, MAX_INTERFACES, READ_ONLY),
        table("EVENTS", MapType::RingBuf, 0, 0, EVENTS),
    ]
}

impl Shape {
    /// Compares a pinned map with what it must be; `Ok(Some(..))` where it is something else.
    ///
    /// # Errors
    /// The pin is no map, or can't be opened.
    pub(super) fn compare(&self, directory: &Path) -> Result<Option<Misfit>, MapError> {
        let info = MapInfo::from_pin(directory.join(self.name))?;
        let kind = info.map_type().unwrap_or(MapType::Unspecified);
        let pairs = [
            ("type", kind as u32, self.kind as u32),
            ("key size", info.key_size(), self.key_size),
            ("value size", info.value_size(), self.value_size),
            (NUMBER_OF_ENTRIES, info.max_entries(), self.max_entries),
            ("flags", info.map_flags(), self.flags),
        ];
        let mut differing = pairs
            .into_iter()
            .filter(|(_, found, needed)| found != needed);
        Ok(differing.next().map(|(what, found, needed)| Misfit {
            what,
            found,
            needed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_row_for_each_pair_of_buckets_whatever_the_number_of_entries() {
        for entries in [1_024, 1_000_000, 1_048_580, 16_777_216] {
            let shapes = shapes(entries, 2);
            let rows = |name| {
                shapes
                    .iter()
                    .find(|shape| shape.name == name)
                    .unwrap()
                    .max_entries
            };
            assert_eq!(rows(FLOW_PAIRS) * 2, rows(FLOWS), "{entries}");
        }
    }
}
