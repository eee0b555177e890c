//! How many ticks `jiffies` counts a second: a choice made when the kernel was built, which no interface tells
//! (`sysconf(_SC_CLK_TCK)` is another number).

use std::{
    io,
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

/// Every value of `CONFIG_HZ` (`kernel/Kconfig.hz`).
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// Long enough to tell 250 from 300 by whole ticks, where nothing comes between the clocks.
const SPAN: Duration = Duration::from_millis(120);
/// Each takes twice as long as the one before, the last two seconds: what a busy machine puts between two readings weighs
/// half as much each time.
const TRIES: usize = 5;

/// The rate can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The maintenance program can't be run.
    #[error("can't read the kernel's clock: {0}")]
    Read(#[from] io::Error),
    /// No rate is near what was measured.
    #[error(
        "the kernel's clock runs at {0} ticks a second, which is not a rate of Linux\n   mend: try again; is the machine paused or overloaded?"
    )]
    Strange(u64),
}

/// Measures the rate of a clock; takes an eighth of a second, more where others have the CPUs.
pub(super) fn measure(ticks: impl Fn() -> io::Result<u64>) -> Result<u32, ClockError> {
    let (mut span, mut seen) = (SPAN, 0);
    for _ in 0..TRIES {
        let first = Reading::take(&ticks)?;
        thread::sleep(span);
        let last = Reading::take(&ticks)?;
        let elapsed = last.before - first.after..=last.after - first.before;
        match rate(last.ticks.wrapping_sub(first.ticks), &elapsed) {
            Ok(rate) => return Ok(rate),
            Err(measured) => seen = measured,
        }
        span *= 2;
    }
    Err(ClockError::Strange(seen))
}

/// A look at the clock, at some time between two others: a thread that waits for a CPU meanwhile makes them differ.
struct Reading {
    before: Instant,
    ticks: u64,
    after: Instant,
}

impl Reading {
    fn take(ticks: impl Fn() -> io::Result<u64>) -> io::Result<Self> {
        let before = Instant::now();
        let ticks = ticks()?;
        let after = Instant::now();
        Ok(Self {
            before,
            ticks,
            after,
        })
    }
}

/// The only rate that fits so many ticks in a time between these, give or take a tick at each end; else what was measured.
fn rate(ticks: u64, elapsed: &RangeInclusive<Duration>) -> Result<u32, u64> {
    let microseconds = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (shortest, longest) = (microseconds(elapsed.start()), microseconds(elapsed.end()));
    let expected = |rate: u32, time: u64| u64::from(rate).saturating_mul(time) / 1_000_000;
    let fits = |rate: &u32| {
        let (least, most) = (expected(*rate, shortest), expected(*rate, longest));
        ticks + 2 + least / 50 >= least && ticks <= most + 2 + most / 50
    };
    let mut fitting = RATES.into_iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(rate), None) => Ok(rate),
        _ => Err(ticks * 1_000_000 / longest.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn exactly(elapsed: Duration) -> RangeInclusive<Duration> {
        elapsed..=elapsed
    }

    #[test]
    fn whole_ticks_tell_the_rates_apart() {
        for hz in RATES {
            for milliseconds in [120, 125, 180, 400] {
                let ticks = u64::from(hz) * milliseconds / 1000;
                for off in [-1, 0, 1] {
                    let elapsed = exactly(Duration::from_millis(milliseconds));
                    assert_eq!(
                        rate(ticks.saturating_add_signed(off), &elapsed),
                        Ok(hz),
                        "{hz} {milliseconds} {off}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_clock_that_stands_or_races_is_refused() {
        assert_eq!(rate(0, &exactly(SPAN)), Err(0));
        assert_eq!(rate(60, &exactly(SPAN)), Err(500));
    }

    #[test]
    fn a_reading_that_may_have_come_late_decides_nothing() {
        // 36 ticks are 120 ms at 300 Hz, or 144 ms at 250 Hz.
        let late = SPAN..=Duration::from_millis(145);
        assert_eq!(rate(36, &late), Err(248));
        assert_eq!(rate(30, &late), Ok(250));
    }

    #[test]
    fn a_thread_that_waits_for_a_cpu_between_the_clocks_measures_again() {
        for late_at in [0, 1] {
            let (start, reads) = (Instant::now(), Cell::new(0));
            let ticks = || {
                // What a full run queue does, once: it comes before the clock is read or after.
                let read = reads.replace(reads.get() + 1);
                let late = || thread::sleep(Duration::from_millis(24));
                if read == late_at && read == 1 {
                    late();
                }
                let now = u64::try_from(start.elapsed().as_millis()).unwrap() / 4;
                if read == late_at && read == 0 {
                    late();
                }
                Ok(now)
            };
            assert_eq!(measure(ticks).unwrap(), 250, "late at {late_at}");
        }
    }
}
