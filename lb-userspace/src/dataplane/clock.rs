//! How many ticks `jiffies` counts a second: a choice made when the kernel was built, which no interface tells
//! (`sysconf(_SC_CLK_TCK)` is another number).

use std::{
    io, thread,
    time::{Duration, Instant},
};

/// Every value of `CONFIG_HZ` (`kernel/Kconfig.hz`).
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// Long enough to tell 250 from 300 by whole ticks.
const SPAN: Duration = Duration::from_millis(120);
/// A busy or paused machine spoils a measurement, not three.
const TRIES: usize = 3;

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

/// Measures the rate of a clock; takes an eighth of a second.
pub(super) fn measure(ticks: impl Fn() -> io::Result<u64>) -> Result<u32, ClockError> {
    let mut seen = 0;
    for _ in 0..TRIES {
        let (start, first) = (Instant::now(), ticks()?);
        thread::sleep(SPAN);
        let (elapsed, last) = (start.elapsed(), ticks()?);
        match rate(last.wrapping_sub(first), elapsed) {
            Ok(rate) => return Ok(rate),
            Err(measured) => seen = measured,
        }
    }
    Err(ClockError::Strange(seen))
}

/// The rate that fits so many ticks in that time, give or take a tick at each end; else what was measured.
fn rate(ticks: u64, elapsed: Duration) -> Result<u32, u64> {
    let microseconds = u64::try_from(elapsed.as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let fits = |rate: u32| {
        let expected = u64::from(rate).saturating_mul(microseconds) / 1_000_000;
        ticks.abs_diff(expected) <= 2 + expected / 50
    };
    let distance =
        |rate: &u32| (u64::from(*rate).saturating_mul(microseconds) / 1_000_000).abs_diff(ticks);
    RATES
        .into_iter()
        .filter(|rate| fits(*rate))
        .min_by_key(distance)
        .ok_or(ticks * 1_000_000 / microseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_ticks_tell_the_rates_apart() {
        for hz in RATES {
            for milliseconds in [120, 125, 180, 400] {
                let ticks = u64::from(hz) * milliseconds / 1000;
                for off in [-1, 0, 1] {
                    let elapsed = Duration::from_millis(milliseconds);
                    assert_eq!(
                        rate(ticks.saturating_add_signed(off), elapsed),
                        Ok(hz),
                        "{hz} {milliseconds} {off}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_clock_that_stands_or_races_is_refused() {
        assert_eq!(rate(0, SPAN), Err(0));
        assert_eq!(rate(60, SPAN), Err(500));
    }
}
