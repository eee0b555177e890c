//! When the checks of one backend start, and the order in which their results count.

use std::{future::pending, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tokio::time::{Instant, sleep_until};

/// Over how long the first checks of few backends are spread, and those of many at most.
const FIRST_WITHIN: Duration = Duration::from_millis(100);
const FIRST_WITHIN_AT_MOST: Duration = Duration::from_secs(2);
/// How much of that a backend takes. A check costs both hosts some 50 us of CPU, and several times that where they are
/// busy.
const A_FIRST_CHECK: Duration = Duration::from_millis(1);

/// Over how long the first checks of so many backends are spread, where their interval is not shorter.
#[must_use]
pub fn first_checks_within(backends: usize) -> Duration {
    let backends = u32::try_from(backends).unwrap_or(u32::MAX);
    A_FIRST_CHECK
        .saturating_mul(backends)
        .clamp(FIRST_WITHIN, FIRST_WITHIN_AT_MOST)
}

/// The moments at which checks start.
///
/// 1. The first check comes soon, within [`first_checks_within`] and the interval: a few backends are all known after
///    a moment, and thousands that are new do not make the host so busy that good ones time out.
/// 2. The others come at `base + k x interval`, where `base` lies in the first interval. Both are spread by `phase`, so
///    that a thousand backends do not fire together, now or later.
/// 3. No gap is longer than an interval, and none depends on how long checks take.
/// 4. Moments that went by unused (the host was asleep, or stuck) are left out, not made up for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    first: Instant,
    base: Instant,
    interval: Duration,
}

impl Schedule {
    /// `within` is that of the first check, and `phase` from 0 up to 1.
    pub(super) fn new(start: Instant, interval: Duration, within: Duration, phase: f64) -> Self {
        Self {
            first: start + interval.min(within).mul_f64(phase),
            base: start + interval.mul_f64(phase),
            interval,
        }
    }

    /// The moment that follows `now`.
    fn after(&self, now: Instant) -> Instant {
        if now < self.base {
            return self.base;
        }
        let whole = (now - self.base).as_nanos() / self.interval.as_nanos().max(1);
        let next = u32::try_from(whole + 1)
            .ok()
            .and_then(|count| self.interval.checked_mul(count));
        next.map_or(now + self.interval, |elapsed| self.base + elapsed)
    }

    /// Starts `probe` at every moment and hands what it yields to `deliver`, in the order in which they started, until
    /// `deliver` says that nobody listens any more.
    ///
    /// A probe that outlasts the interval runs beside the next one. Its result counts first all the same: two results
    /// are consecutive where their checks were.
    pub(super) async fn run<T, P, D>(self, probe: impl Fn() -> P, mut deliver: impl FnMut(T) -> D)
    where
        P: Future<Output = T>,
        D: Future<Output = bool>,
    {
        let mut next = self.first;
        let mut running = FuturesOrdered::new();
        loop {
            let finished = async {
                match running.next().await {
                    Some(result) => result,
                    None => pending().await,
                }
            };
            tokio::select! {
                result = finished => if !deliver(result).await {
                    return;
                },
                () = sleep_until(next) => {
                    next = self.after(Instant::now());
                    running.push_back(probe());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc, time::SystemTime};

    use proptest::prelude::*;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::health::State;

    /// When the checks of one backend start, in milliseconds, and when their results come, if each takes as long as
    /// `durations` says, in turn.
    async fn trace(
        phase: f64,
        interval: u64,
        durations: &[u64],
        whole: u64,
    ) -> (Vec<u128>, Vec<(usize, u128)>) {
        let start = Instant::now();
        let starts = Rc::new(RefCell::new(Vec::new()));
        let results = Rc::new(RefCell::new(Vec::new()));
        let probe = || {
            let number = starts.borrow().len();
            starts.borrow_mut().push(start.elapsed().as_millis());
            let duration = durations[number % durations.len()];
            async move {
                sleep(Duration::from_millis(duration)).await;
                number
            }
        };
        let deliver = |number| {
            results
                .borrow_mut()
                .push((number, start.elapsed().as_millis()));
            async { true }
        };
        let schedule = Schedule::new(start, Duration::from_millis(interval), FIRST_WITHIN, phase);
        timeout(Duration::from_millis(whole), schedule.run(probe, deliver))
            .await
            .unwrap_err();
        (starts.take(), results.take())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_check_comes_at_once_and_the_others_every_interval() {
        let (starts, _) = trace(0.0, 1000, &[5], 3500).await;
        assert_eq!(starts, [0, 1000, 2000, 3000]);
    }

    #[tokio::test(start_paused = true)]
    async fn backends_are_spread_over_the_interval() {
        let (starts, _) = trace(0.5, 1000, &[5], 3000).await;
        assert_eq!(starts, [50, 500, 1500, 2500]);
    }

    #[test]
    fn the_first_checks_of_many_take_longer_and_those_of_few_are_soon_done() {
        let within = [0, 100, 101, 1_500, 2_000, 4_096, usize::MAX].map(first_checks_within);
        let millis = within.map(|within| within.as_millis());
        assert_eq!(millis, [100, 100, 101, 1_500, 2_000, 2_000, 2_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_check_does_not_delay_the_next_one() {
        let (starts, results) = trace(0.0, 1000, &[2500, 10], 4400).await;
        assert_eq!(starts, [0, 1000, 2000, 3000, 4000]);
        assert_eq!(results, [(0, 2500), (1, 2500)]);
    }

    #[tokio::test(start_paused = true)]
    async fn results_count_in_the_order_of_their_checks() {
        let (_, results) = trace(0.0, 1000, &[1500, 10, 10], 3000).await;
        assert_eq!(results, [(0, 1500), (1, 1500), (2, 2010)]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_listens() {
        let schedule = Schedule::new(Instant::now(), Duration::from_secs(1), FIRST_WITHIN, 0.0);
        let run = schedule.run(|| async {}, |()| async { false });
        timeout(Duration::from_secs(5), run).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_is_noticed_within_fall_intervals_and_a_timeout() {
        let (interval, timeout_after, fall) =
            (Duration::from_secs(1), Duration::from_millis(500), 3);
        for (phase, death) in [
            (0.0, 3001),
            (0.0, 3999),
            (0.3, 2290),
            (0.3, 2310),
            (0.99, 100),
            (0.99, 5555),
        ] {
            let start = Instant::now();
            let death = start + Duration::from_millis(death);
            // A host that has died answers nothing, so that each check takes its whole timeout.
            let probe = || async move {
                sleep(Duration::from_millis(2)).await;
                if Instant::now() < death {
                    return Ok(());
                }
                sleep(timeout_after.saturating_sub(Duration::from_millis(2))).await;
                Err("timed out".into())
            };
            let mut state = State::new(Some(true), 2, fall, SystemTime::now());
            let deliver = |outcome| {
                let down = state.observe(&outcome, SystemTime::now()).is_some();
                async move { !down }
            };
            Schedule::new(start, interval, FIRST_WITHIN, phase)
                .run(probe, deliver)
                .await;
            let noticed = Instant::now() - death;
            assert!(
                noticed <= interval * fall + timeout_after,
                "{noticed:?} at phase {phase}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_missed_is_left_out() {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_secs(1), FIRST_WITHIN, 0.25);
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(schedule.after(at(0)), at(250));
        assert_eq!(schedule.after(at(250)), at(1250));
        assert_eq!(schedule.after(at(3_600_100)), at(3_600_250));
    }

    proptest! {
        #[test]
        fn no_gap_is_longer_than_the_interval(
            interval in 1_u64..60_000,
            phase in 0.0..1.0_f64,
            backends in 0_usize..10_000,
            elapsed in 0_u64..10_000_000,
        ) {
            let start = Instant::now();
            let interval = Duration::from_millis(interval);
            let within = first_checks_within(backends);
            let schedule = Schedule::new(start, interval, within, phase);
            prop_assert!(schedule.first <= start + within.min(interval));
            prop_assert!(schedule.after(schedule.first) <= schedule.first + interval);
            let now = schedule.first + Duration::from_millis(elapsed);
            let next = schedule.after(now);
            prop_assert!(next > now && next <= now + interval);
        }
    }
}
