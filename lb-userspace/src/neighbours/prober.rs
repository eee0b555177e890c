//! When to probe a neighbour. Pure; time is passed in.
//!
//! Packets that XDP forwards don't keep the kernel's entries alive: an entry grows stale after about half a minute
//! though traffic flows, and a stale one is never checked unless the host itself uses it. So:
//! 1. an entry that has grown stale is probed at once, which makes the kernel confirm it by a unicast request;
//! 2. a neighbour that is not known is probed at once and then after 1, 2, 4 and at most [`SLOWEST`]: the kernel sends
//!    three requests within three seconds for a probe;
//! 3. one that a packet waits for is probed at once, at most once in [`FASTEST`];
//! 4. one that is valid, or being confirmed, is left alone, and a permanent one always.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::table::{NeighbourKey, Usability};

/// Between two probes of a neighbour in any case.
const FASTEST: Duration = Duration::from_millis(500);
/// Before the second probe of a neighbour that is not known.
const FIRST: Duration = Duration::from_secs(1);
/// Between two probes of a neighbour that does not answer.
const SLOWEST: Duration = Duration::from_secs(8);
/// Between two probes of one that stays stale: the kernel needs five seconds before it asks.
const STALE: Duration = Duration::from_secs(15);

/// Remembers when each neighbour was probed.
#[derive(Debug, Default)]
pub(crate) struct Prober {
    entries: BTreeMap<NeighbourKey, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    usability: Usability,
    probed: Option<Instant>,
    /// Waits this long after a probe.
    wait: Duration,
    /// A packet waits for it.
    wanted: bool,
}

impl Prober {
    /// Takes the neighbours that matter, forgets others, and gives those to be probed now.
    pub(crate) fn due(
        &mut self,
        neighbours: impl Iterator<Item = (NeighbourKey, Usability)>,
        now: Instant,
    ) -> Vec<NeighbourKey> {
        let before = std::mem::take(&mut self.entries);
        let mut due = Vec::new();
        for (key, usability) in neighbours {
            let mut entry = match before.get(&key) {
                Some(entry) if entry.usability == usability => *entry,
                Some(entry) => Entry {
                    usability,
                    wait: FIRST,
                    wanted: false,
                    ..*entry
                },
                None => Entry {
                    usability,
                    probed: None,
                    wait: FIRST,
                    wanted: false,
                },
            };
            if entry.at(now).is_some_and(|at| at <= now) && !due.contains(&key) {
                due.push(key);
                entry.wait = if entry.probed.is_none() {
                    FIRST
                } else {
                    (entry.wait * 2).min(SLOWEST)
                };
                entry.probed = Some(now);
                entry.wanted = false;
            }
            self.entries.entry(key).or_insert(entry);
        }
        due
    }

    /// A packet waits for this neighbour.
    pub(crate) fn want(&mut self, key: NeighbourKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.wanted = true;
        }
    }

    /// When to ask again what is due; `None`: not before something changes.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| entry.at(now))
            .min()
    }
}

impl Entry {
    /// When it is to be probed, if at all.
    fn at(&self, now: Instant) -> Option<Instant> {
        let wait = match self.usability {
            Usability::Fixed | Usability::Fresh | Usability::Confirming => return None,
            Usability::None if self.wanted => FASTEST,
            Usability::None => self.wait,
            Usability::Stale => STALE,
        };
        Some(self.probed.map_or(now, |at| at + wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NeighbourKey = (
        3,
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5)),
    );

    /// Seconds, from the first one on, at which a neighbour in this state is probed.
    fn probes(prober: &mut Prober, usability: Usability, from: Instant, seconds: u64) -> Vec<u64> {
        let due = |second: &u64| {
            let now = from + Duration::from_secs(*second);
            !prober.due([(KEY, usability)].into_iter(), now).is_empty()
        };
        (0..seconds).filter(due).collect()
    }

    #[test]
    fn a_neighbour_that_is_not_known_is_probed_at_once_and_then_ever_more_rarely() {
        let now = Instant::now();
        let mut prober = Prober::default();
        assert_eq!(
            probes(&mut prober, Usability::None, now, 40),
            [0, 1, 3, 7, 15, 23, 31, 39]
        );
        assert_eq!(prober.next(now), Some(now + Duration::from_secs(47)));
    }

    #[test]
    fn a_stale_neighbour_is_probed_at_once_and_a_valid_one_never() {
        let now = Instant::now();
        let mut prober = Prober::default();
        for valid in [Usability::Fixed, Usability::Fresh, Usability::Confirming] {
            assert!(probes(&mut prober, valid, now, 100).is_empty());
            assert_eq!(prober.next(now), None);
        }
        assert_eq!(probes(&mut prober, Usability::Stale, now, 31), [0, 15, 30]);
    }

    #[test]
    fn a_neighbour_that_was_known_starts_anew_when_it_is_lost() {
        let now = Instant::now();
        let mut prober = Prober::default();
        assert_eq!(probes(&mut prober, Usability::None, now, 30).len(), 6);
        let later = now + Duration::from_mins(1);
        assert!(probes(&mut prober, Usability::Fresh, later, 10).is_empty());
        let later = later + Duration::from_secs(10);
        assert_eq!(probes(&mut prober, Usability::None, later, 8), [0, 2, 6]);
    }

    #[test]
    fn a_packet_that_waits_brings_the_next_probe_forward() {
        let now = Instant::now();
        let mut prober = Prober::default();
        assert_eq!(
            probes(&mut prober, Usability::None, now, 20),
            [0, 1, 3, 7, 15]
        );
        prober.want(KEY);
        assert_eq!(
            prober.next(now),
            Some(now + Duration::from_secs(15) + FASTEST)
        );
        assert_eq!(
            probes(
                &mut prober,
                Usability::None,
                now + Duration::from_secs(16),
                1
            ),
            [0]
        );
        assert_eq!(prober.next(now), Some(now + Duration::from_secs(24)));
    }

    #[test]
    fn a_neighbour_that_is_no_longer_wanted_is_forgotten() {
        let now = Instant::now();
        let mut prober = Prober::default();
        assert_eq!(probes(&mut prober, Usability::None, now, 20).len(), 5);
        assert!(prober.due([].into_iter(), now).is_empty());
        prober.want(KEY);
        assert_eq!(prober.next(now), None);
        let back = now + Duration::from_secs(20);
        assert_eq!(
            probes(&mut prober, Usability::None, back, 8),
            [0, 1, 3, 7],
            "it begins anew"
        );
    }

    #[test]
    fn two_ways_through_one_neighbour_are_one_probe() {
        let now = Instant::now();
        let both = [(KEY, Usability::None), (KEY, Usability::None)];
        assert_eq!(Prober::default().due(both.into_iter(), now), [KEY]);
    }
}
