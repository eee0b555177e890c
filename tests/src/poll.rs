//! Waiting for something to become true, with a deadline. The only place of the harness that lets time pass.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take that no test measures: where others keep every CPU busy, much takes ten times as long as it
/// should. Nothing waits for so long where all is well.
pub const SOON: Duration = Duration::from_secs(30);

/// How long between two looks: short against what tests measure, long against what a look costs.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `look` gives a value.
///
/// # Errors
/// When `within` is over: `what` was waited for and what was last seen instead.
pub fn until<T, E: Display>(
    within: Duration,
    what: impl Display,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => {
                bail!("waited {within:?} for {what}; last seen: {seen:#}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Looks for the whole of `span`, and fails as soon as `look` does.
///
/// # Errors
/// That of `look`, with the time at which it came.
pub fn throughout<E: Display>(
    span: Duration,
    what: impl Display,
    mut look: impl FnMut() -> Result<(), E>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(seen) = look() {
            bail!(
                "{what} should have held for {span:?}, after {:?}: {seen:#}",
                start.elapsed()
            );
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_tells_what_was_last_seen() {
        let mut looks = 0;
        let error = until(Duration::from_millis(20), "rain", || {
            looks += 1;
            Err::<(), _>("sun")
        });
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "waited 20ms for rain; last seen: sun");
        assert!(looks > 1, "looked {looks} times");
    }

    #[test]
    fn the_value_comes_through() {
        let mut left = 3;
        let value = until(Duration::from_secs(5), "zero", || {
            left -= 1;
            if left == 0 {
                Ok("there")
            } else {
                Err(format!("{left} left"))
            }
        });
        assert_eq!(value.unwrap(), "there");
    }
}
