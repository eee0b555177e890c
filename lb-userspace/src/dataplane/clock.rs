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
/// A busy or paused machine spoils a measurement; the next is twice as long.
const TRIES: usize = 6;

/// The rate can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The maintenance program can't be run.
    #[error("can't read the kernel's clock: {0}")]
    Read(#[from] io::Error),
    /// No rate is near what was measured.
    #[error(
        "the kernel's clock runs at {0} ticks a second, which is not a rate of Linux\n   help: try again; is the machine paused or overloaded?"
    )]
    Strange(u64),
}

/// Measures the rate of a clock; takes an eighth of a second, and longer on a busy machine.
pub(super) fn measure(ticks: impl FnMut() -> io::Result<u64>) -> Result<u32, ClockError> {
    let start = Instant::now();
    measure_by(ticks, || start.elapsed(), thread::sleep)
}

/// The same by any time: what has passed, and a way to let some pass.
fn measure_by(
    mut ticks: impl FnMut() -> io::Result<u64>,
    now: impl Fn() -> Duration,
    pause: impl Fn(Duration),
) -> Result<u32, ClockError> {
    // Reading the ticks runs a program in the kernel; on a busy machine the reader waits, before it or after.
    let mut read = || -> io::Result<_> {
        let before = now();
        let ticks = ticks()?;
        Ok((before, ticks, now()))
    };
    let mut span = SPAN;
    let mut seen = 0;
    for _ in 0..TRIES {
        let (earliest, first, latest) = read()?;
        pause(span);
        let (begun, last, done) = read()?;
        let between = [begun.saturating_sub(latest), done.saturating_sub(earliest)];
        match rate(last.wrapping_sub(first), between) {
            Ok(rate) => return Ok(rate),
            Err(measured) => seen = measured,
        }
        span *= 2;
    }
    Err(ClockError::Strange(seen))
}

/// The one rate that fits so many ticks in a time between these two, give or take a tick at each end; else, or where more
/// than one does, what was measured.
fn rate(ticks: u64, [least, most]: [Duration; 2]) -> Result<u32, u64> {
    let expected = |rate: u32, time: Duration| {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        u64::from(rate).saturating_mul(microseconds) / 1_000_000
    };
    let fits = |rate: &u32| {
        let (fewest, most) = (expected(*rate, least), expected(*rate, most));
        ticks + 2 + fewest / 50 >= fewest && ticks <= most + 2 + most / 50
    };
    let mut fitting = RATES.into_iter().filter(fits);
    if let (Some(rate), None) = (fitting.next(), fitting.next()) {
        return Ok(rate);
    }
    let microseconds = u64::try_from(least.as_micros()).unwrap_or(u64::MAX);
    Err(ticks.saturating_mul(1_000_000) / microseconds.max(1))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn whole_ticks_tell_the_rates_apart() {
        for hz in RATES {
            for milliseconds in [120, 125, 180, 400] {
                let ticks = u64::from(hz) * milliseconds / 1000;
                for off in [-1, 0, 1] {
                    let elapsed = Duration::from_millis(milliseconds);
                    assert_eq!(
                        rate(ticks.saturating_add_signed(off), [elapsed; 2]),
                        Ok(hz),
                        "{hz} {milliseconds} {off}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_clock_that_stands_or_races_is_refused() {
        assert_eq!(rate(0, [SPAN; 2]), Err(0));
        assert_eq!(rate(60, [SPAN; 2]), Err(500));
    }

    #[test]
    fn a_machine_that_is_late_for_every_other_reading_tells_its_rate_all_the_same() {
        for hz in RATES {
            let time = Cell::new(Duration::ZERO);
            let pass = |span: Duration| time.set(time.get() + span);
            let late = Cell::new(true);
            let ticks = || {
                late.set(!late.get());
                if late.get() {
                    pass(Duration::from_millis(50));
                }
                let milliseconds = u64::try_from(time.get().as_millis()).unwrap();
                Ok(u64::from(hz) * milliseconds / 1000)
            };
            assert_eq!(measure_by(ticks, || time.get(), pass).unwrap(), hz);
        }
    }

    #[test]
    fn a_clock_that_stands_is_given_up() {
        let time = Cell::new(Duration::ZERO);
        let pass = |span: Duration| time.set(time.get() + span);
        let error = measure_by(|| Ok(7), || time.get(), pass).unwrap_err();
        assert!(matches!(error, ClockError::Strange(0)), "{error}");
    }
}
