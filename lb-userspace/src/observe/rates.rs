//! Change a second of counters that only grow, over the last interval that was long enough to mean something.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Shorter intervals say more about the clock than about the traffic.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// Remembers `N` counters of each `K` and gives their rates.
#[derive(Debug)]
pub struct Rates<K, const N: usize> {
    taken: Option<Instant>,
    counts: BTreeMap<K, [u64; N]>,
    last: BTreeMap<K, [f64; N]>,
}

impl<K, const N: usize> Default for Rates<K, N> {
    fn default() -> Self {
        Self {
            taken: None,
            counts: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, const N: usize> Rates<K, N> {
    /// Takes the counters as they are `now`. Within [`SHORTEST`] of the last time nothing changes.
    pub fn observe(&mut self, now: Instant, counts: BTreeMap<K, [u64; N]>) {
        let Some(taken) = self.taken else {
            self.taken = Some(now);
            self.counts = counts;
            return;
        };
        let passed = now.saturating_duration_since(taken);
        if passed < SHORTEST {
            return;
        }
        self.last = counts
            .iter()
            .filter_map(|(key, after)| {
                let before = self.counts.get(key)?;
                Some((key.clone(), per_second(*before, *after, passed)))
            })
            .collect();
        self.taken = Some(now);
        self.counts = counts;
    }

    /// Rates of one key, a second; zero while there is no interval yet.
    #[must_use]
    pub fn of(&self, key: &K) -> [f64; N] {
        self.last.get(key).copied().unwrap_or([0.0; N])
    }
}

fn per_second<const N: usize>(before: [u64; N], after: [u64; N], passed: Duration) -> [f64; N] {
    std::array::from_fn(|index| {
        // A row with a new tenant starts again from zero.
        let change = after[index].saturating_sub(before[index]);
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        let change = change as f64;
        change / passed.as_secs_f64()
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the counts divide evenly")]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_change_over_the_interval() {
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.observe(start, BTreeMap::from([("web", [100, 5])]));
        assert_eq!(rates.of(&"web"), [0.0, 0.0]);
        rates.observe(
            start + Duration::from_millis(300),
            BTreeMap::from([("web", [900, 5])]),
        );
        assert_eq!(rates.of(&"web"), [0.0, 0.0], "too soon");
        rates.observe(
            start + Duration::from_secs(2),
            BTreeMap::from([("web", [300, 5])]),
        );
        assert_eq!(rates.of(&"web"), [100.0, 0.0]);
        rates.observe(
            start + Duration::from_secs(2) + SHORTEST,
            BTreeMap::from([("web", [307, 5])]),
        );
        assert_eq!(rates.of(&"web"), [7.0, 0.0], "just long enough");
    }

    #[test]
    fn a_counter_that_starts_again_has_no_negative_rate() {
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.observe(start, BTreeMap::from([(1, [100])]));
        rates.observe(start + SHORTEST, BTreeMap::from([(1, [3])]));
        assert_eq!(rates.of(&1), [0.0]);
    }
}
