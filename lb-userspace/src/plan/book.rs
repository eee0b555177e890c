//! What the maps can't say: the neighbours behind which backends are, who owns an interface's row, and what rests before it
//! is used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use lb_common::abi::{BackendId, InterfaceSlot, ServiceId};

use super::HopKey;

/// How long an id or a range rests after the last thing that named it is gone. A packet takes microseconds from
/// reading a word to using what it names; the margin is for a CPU that is taken away in between.
pub const GRACE: Duration = Duration::from_secs(2);

/// What a scan of the flow table found referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct References {
    /// When the scan began.
    pub started: Instant,
    /// Rows of `BACKENDS`.
    pub backends: BTreeSet<BackendId>,
    /// Rows of `SERVICES`.
    pub services: BTreeSet<ServiceId>,
    /// Rows of `INTERFACES`.
    pub interfaces: BTreeSet<InterfaceSlot>,
}

/// A row that flows may still refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    since: Instant,
    /// Starts of the first and the last of the scans in a row that found no reference.
    clean: Option<(Instant, Instant)>,
    /// The last scan found a reference.
    held: bool,
}

/// Notes beside the maps; see the module.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The last known MAC address of each neighbour that leads to a backend.
    pub(super) neighbours: BTreeMap<HopKey, [u8; 6]>,
    pub(super) interfaces: BTreeMap<String, InterfaceSlot>,
    backends: BTreeMap<BackendId, Rest>,
    services: BTreeMap<ServiceId, Rest>,
    slots: BTreeMap<InterfaceSlot, Rest>,
    /// By the word that named them.
    resting_ranges: BTreeMap<u64, Instant>,
}

impl Book {
    /// Takes in what a scan of the flow table found.
    ///
    /// A row is free once two scans that began at least [`GRACE`] apart, and none between them, found no reference.
    pub fn scanned(&mut self, found: &References) {
        for (id, rest) in &mut self.backends {
            rest.scanned(found.started, found.backends.contains(id));
        }
        for (id, rest) in &mut self.services {
            rest.scanned(found.started, found.services.contains(id));
        }
        for (slot, rest) in &mut self.slots {
            rest.scanned(found.started, found.interfaces.contains(slot));
        }
    }

    /// Whether scans of the flow table are needed to free something.
    #[must_use]
    pub fn waits_for_scan(&self) -> bool {
        !(self.backends.is_empty() && self.services.is_empty() && self.slots.is_empty())
    }

    /// Whether all that waits for scans was referred to at the last one: only the end of a flow will free something.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let backends = self.backends.values().chain(self.services.values());
        backends.chain(self.slots.values()).all(|rest| rest.held)
    }

    /// When the next thing that rests by time alone is free.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        let since = self.resting_ranges.values().min()?;
        Some(*since + GRACE)
    }

    /// Makes the resting backends exactly those given; gives those that are free now.
    pub(super) fn rest_backends(
        &mut self,
        retired: &BTreeSet<BackendId>,
        now: Instant,
    ) -> Vec<BackendId> {
        rest(&mut self.backends, retired, now)
    }

    /// The same for services.
    pub(super) fn rest_services(
        &mut self,
        retired: &BTreeSet<ServiceId>,
        now: Instant,
    ) -> Vec<ServiceId> {
        rest(&mut self.services, retired, now)
    }

    /// The same for rows of interfaces.
    pub(super) fn rest_interfaces(
        &mut self,
        retired: &BTreeSet<InterfaceSlot>,
        now: Instant,
    ) -> Vec<InterfaceSlot> {
        let free = rest(&mut self.slots, retired, now);
        self.interfaces.retain(|_, slot| !free.contains(slot));
        free
    }

    /// Lets ranges rest that were in force before and no longer are, and forgets those that have rested. A range is
    /// given by the word that names it.
    pub(super) fn rest_ranges(
        &mut self,
        before: &BTreeSet<u64>,
        after: &BTreeSet<u64>,
        now: Instant,
    ) {
        self.resting_ranges
            .retain(|range, since| !after.contains(range) && now < *since + GRACE);
        for range in before.difference(after) {
            self.resting_ranges.entry(*range).or_insert(now);
        }
    }

    /// Ranges that rest at `now`, by the words that named them.
    pub(super) fn resting_ranges(&self, now: Instant) -> impl Iterator<Item = u64> {
        self.resting_ranges
            .iter()
            .filter(move |(_, since)| now < **since + GRACE)
            .map(|(range, _)| *range)
    }
}

impl Rest {
    fn scanned(&mut self, started: Instant, referred_to: bool) {
        if started < self.since {
            return;
        }
        self.held = referred_to;
        self.clean = match self.clean {
            _ if referred_to => None,
            None => Some((started, started)),
            Some((first, last)) => Some((first, last.max(started))),
        };
    }

    fn is_over(&self) -> bool {
        self.clean
            .is_some_and(|(first, last)| last.saturating_duration_since(first) >= GRACE)
    }
}

fn rest<Id: Ord + Copy>(
    resting: &mut BTreeMap<Id, Rest>,
    retired: &BTreeSet<Id>,
    now: Instant,
) -> Vec<Id> {
    resting.retain(|id, _| retired.contains(id));
    for id in retired {
        resting.entry(*id).or_insert(Rest {
            since: now,
            clean: None,
            held: false,
        });
    }
    let free: Vec<_> = resting
        .iter()
        .filter(|(_, rest)| rest.is_over())
        .map(|(id, _)| *id)
        .collect();
    resting.retain(|_, rest| !rest.is_over());
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_that_began_before_a_row_retired_frees_nothing() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let id = BackendId::new(1).unwrap();
        let retired = BTreeSet::from([id]);
        let clean = |started| References {
            started,
            backends: BTreeSet::new(),
            services: BTreeSet::new(),
            interfaces: BTreeSet::new(),
        };
        let mut book = Book::default();
        assert_eq!(book.rest_backends(&retired, at(10)), []);
        // The row had its tenant when the first one looked; a flow may have been made since.
        for started in [9, 11, 12] {
            book.scanned(&clean(at(started)));
            assert_eq!(book.rest_backends(&retired, at(20)), [], "{started}");
        }
        book.scanned(&clean(at(13)));
        assert_eq!(book.rest_backends(&retired, at(20)), [id]);
    }
}
