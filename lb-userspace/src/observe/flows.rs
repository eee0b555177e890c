//! Counts the flow table: how full it is, which flows are alive, and what its entries refer to.
//!
//! The entries come from the table's own memory, while packets go on changing them: the counts are of no single
//! moment, and an entry that is caught while being written counts as free.

use std::collections::BTreeMap;

use lb_common::{
    abi::{FlowEntry, FlowKey, Recipe, word::Way},
    flow::{self, Clock},
    table::REMEMBERED_SECONDS,
};

/// What a walk over the table found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCensus {
    /// Entries in the table, living or not.
    pub entries: u64,
    /// Active flows by row of `SERVICES` and row of `BACKENDS`.
    pub active: BTreeMap<(u32, u16), u64>,
    /// Entries that a packet may still use, by row of `SERVICES`.
    pub service_references: BTreeMap<u32, u64>,
    /// Entries that a packet may still use, by row of `BACKENDS`.
    pub backend_references: BTreeMap<u16, u64>,
    /// Entries that a packet may still use, by row of `INTERFACES` that its reply leaves through.
    pub interface_references: BTreeMap<u8, u64>,
}

impl FlowCensus {
    /// Counts the entries of a table, in which `at` reads the entry of an index.
    #[must_use]
    pub fn take(
        entries: impl Iterator<Item = FlowEntry>,
        at: impl Fn(u32) -> FlowEntry,
        clock: &Clock,
    ) -> Self {
        let mut census = Self::default();
        for entry in entries {
            if let Some((key, recipe)) = entry.read() {
                census.add(
                    &key,
                    &as_young_as_flow(&entry, &at, (&key, recipe), *clock),
                    *clock,
                );
            }
        }
        census
    }

    /// The same with what replies without an entry refer to ([`lb_common::table::overflow`]).
    #[must_use]
    pub fn with_overflow(
        mut self,
        replies: impl Iterator<Item = FlowEntry>,
        clock: &Clock,
    ) -> Self {
        let remembered = clock.seconds(REMEMBERED_SECONDS);
        for (_, recipe) in replies.filter_map(|entry| entry.read()) {
            if clock.age(recipe.last_seen()) <= remembered {
                self.refer(&recipe);
            }
        }
        self
    }

    fn add(&mut self, key: &FlowKey, recipe: &Recipe, clock: Clock) {
        self.entries += 1;
        if flow::is_expired(recipe, key.protocol(), &clock) {
            return;
        }
        self.refer(recipe);
        // A flow has two entries; the client's stands for it.
        if !recipe.is_reverse() && !flow::is_over(recipe, key.protocol(), &clock) {
            *self
                .active
                .entry((recipe.service(), recipe.backend()))
                .or_default() += 1;
        }
    }

    fn refer(&mut self, recipe: &Recipe) {
        *self.service_references.entry(recipe.service()).or_default() += 1;
        *self.backend_references.entry(recipe.backend()).or_default() += 1;
        if recipe.is_reverse() {
            *self
                .interface_references
                .entry(Way::unpack(recipe.way).interface)
                .or_default() += 1;
        }
    }

    /// Active flows of a service over all its backends.
    #[must_use]
    pub fn active_of_service(&self, service: u32) -> u64 {
        self.active
            .range((service, 0)..=(service, u16::MAX))
            .map(|(_, count)| count)
            .sum()
    }
}

/// The recipe of an entry, used last when its flow was: a packet leaves its time in the entry of its own direction alone.
fn as_young_as_flow(
    entry: &FlowEntry,
    at: impl Fn(u32) -> FlowEntry,
    (key, recipe): (&FlowKey, Recipe),
    clock: Clock,
) -> Recipe {
    if !flow::is_expired(&recipe, key.protocol(), &clock) {
        return recipe;
    }
    match at(entry.partner()).read() {
        Some((other, partner)) if other == flow::partner(key, &recipe) => {
            recipe.used_at(partner.last_seen())
        }
        _ => recipe,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use lb_common::{
        abi::{field, meta},
        flow::State,
    };

    use super::*;

    const TICKS: u32 = 250;

    fn clock(now: u32) -> Clock {
        Clock {
            now,
            ticks_per_second: TICKS,
        }
    }

    fn entry(state: State, flags: u64, last_seen: u32) -> FlowEntry {
        let client = SocketAddrV4::new([198, 51, 100, 7].into(), 40_000);
        let key = FlowKey::new(client, SocketAddrV4::new([192, 0, 2, 10].into(), 80), 6);
        let mut entry = FlowEntry::default();
        entry.words[field::TAG] = 2;
        entry.words[field::ADDRESSES] = key.addresses;
        entry.words[field::REST] = key.rest | (state as u64) << meta::STATE | flags;
        entry.words[field::BINDING] = 3 << 16;
        entry.words[field::SERVICE] = 2 | u64::from(last_seen) << 32;
        entry
    }

    /// The census of a table that is these entries.
    fn take(entries: &[FlowEntry], now: u32) -> FlowCensus {
        let at = |index| entries.get(index as usize).copied().unwrap_or_default();
        FlowCensus::take(entries.iter().copied(), at, &clock(now))
    }

    #[test]
    fn a_flow_that_is_used_in_one_direction_lives_in_both() {
        let now = 8_000 * TICKS;
        for (seen, active) in [([0, now], 1), ([now, 0], 1), ([0, 0], 0)] {
            let forward = entry(State::Established, 0, seen[0]);
            let (key, recipe) = forward.read().unwrap();
            let reply = flow::partner(&key, &recipe);
            let mut reverse = entry(State::Established, meta::REVERSE, seen[1]);
            reverse.words[field::ADDRESSES] = reply.addresses;
            reverse.words[field::REST] = reply.rest | reverse.words[field::REST] & !FlowKey::REST;
            reverse.words[field::REWRITE] =
                u64::from(key.destination_word()) | u64::from(key.destination_port()) << 32;
            let mut entries = [forward, reverse];
            entries[0].words[field::PARTNER] = 1;
            let census = take(&entries, now);
            assert_eq!(census.active_of_service(2), active, "{seen:?}");
            let references = census.backend_references.get(&3).copied();
            assert_eq!(references, (active > 0).then_some(2), "{seen:?}");
        }
    }

    #[test]
    fn a_flow_counts_once_and_a_closed_one_not_at_all() {
        let entries = [
            entry(State::Established, 0, 1_000),
            entry(State::Established, meta::REVERSE, 1_000),
            entry(State::Closed, 0, 1_000),
        ];
        let census = take(&entries, 1_000);
        assert_eq!((census.entries, census.active_of_service(2)), (3, 1));
        assert_eq!(
            census.backend_references[&3], 3,
            "a closed flow's last packets may still come"
        );
    }

    #[test]
    fn each_flow_counts_once_whichever_of_its_entries_is_left() {
        let entries = [
            entry(State::Established, 0, 1_000),
            entry(State::HalfOpen, 0, 1_000),
            entry(State::Established, meta::REVERSE, 1_000),
        ];
        let census = take(&entries, 1_000);
        assert_eq!(
            census.active,
            [((2, 3), 2)].into(),
            "a client's entry stands for it"
        );
        assert_eq!(census.service_references, [(2, 3)].into());
        assert_eq!(
            census.interface_references.values().sum::<u64>(),
            1,
            "only replies name an interface"
        );
    }

    #[test]
    fn remembered_replies_refer_for_as_long_as_they_are_remembered() {
        let replies = || [entry(State::Established, meta::REVERSE, 1_000)].into_iter();
        for (seconds, references) in [(0, 1), (REMEMBERED_SECONDS, 1), (REMEMBERED_SECONDS + 1, 0)]
        {
            let clock = clock(1_000 + seconds * TICKS);
            let census = FlowCensus::default().with_overflow(replies(), &clock);
            let found = census.backend_references.get(&3).copied();
            assert_eq!(found.unwrap_or(0), references, "after {seconds} s");
            assert_eq!((census.entries, census.active.len()), (0, 0));
        }
    }

    #[test]
    fn an_expired_flow_refers_to_nothing() {
        let census = take(&[entry(State::Closed, 0, 0)], TICKS * 31);
        assert_eq!(
            census,
            FlowCensus {
                entries: 1,
                ..FlowCensus::default()
            }
        );
    }

    #[test]
    fn free_entries_and_those_being_written_do_not_count() {
        let mut writing = entry(State::Established, 0, 0);
        writing.words[field::TAG] = 3;
        let census = take(&[writing, FlowEntry::default()], 0);
        assert_eq!(census, FlowCensus::default());
    }
}
