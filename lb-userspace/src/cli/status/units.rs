//! Numbers and times as people read them.

use std::time::{Duration, SystemTime};

/// `999`, `1.2k`, `35.8M`: three digits at most, by powers of a thousand.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn count(count: u64) -> String {
    if count < 1000 {
        count.to_string()
    } else {
        scaled(count as f64)
    }
}

/// Like [`count`], with a fraction where it is small: `0.5`, `12.5`, `3.5k`.
pub(super) fn rate(rate: f64) -> String {
    if rate >= 999.5 {
        scaled(rate)
    } else if rate >= 99.95 || rate.fract().abs() < 0.05 {
        format!("{rate:.0}")
    } else {
        format!("{rate:.1}")
    }
}

fn scaled(mut value: f64) -> String {
    for unit in ["", "k", "M", "G", "T", "P"] {
        if value < 999.5 {
            return if value < 99.95 {
                format!("{value:.1}{unit}")
            } else {
                format!("{value:.0}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1}E")
}

/// `12s`, `3m12s`, `2h05m`, `4d03h`: the two largest units.
pub(super) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// How long before `now` the RFC 3339 time `since` was; empty where either is no such time.
pub(super) fn ago(since: &str, now: Option<SystemTime>) -> String {
    let since = humantime::parse_rfc3339(since).ok();
    now.zip(since).map_or_else(String::new, |(now, since)| {
        elapsed(now.duration_since(since).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let pairs = [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (1_234, "1.2k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (35_802_467, "35.8M"),
            (u64::MAX, "18.4E"),
        ];
        for (number, text) in pairs {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn rates_show_a_fraction_where_it_says_something() {
        let pairs = [
            (0.0, "0"),
            (0.5, "0.5"),
            (0.01, "0"),
            (12.5, "12.5"),
            (100.4, "100"),
            (999.6, "1.0k"),
            (3456.7, "3.5k"),
        ];
        for (number, text) in pairs {
            assert_eq!(rate(number), text);
        }
    }

    #[test]
    fn times_show_two_units() {
        let pairs = [
            (0, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (7_500, "2h05m"),
            (356_400, "4d03h"),
        ];
        for (seconds, text) in pairs {
            assert_eq!(elapsed(Duration::from_secs(seconds)), text);
        }
        assert_eq!(ago("never", Some(SystemTime::now())), "");
    }
}
