//! `[pool.check]` and its keys.

use std::time::Duration;

use toml::de::DeValue;

use super::{
    diagnostic::Report,
    key::{accepted, needed, one_of, or},
    section::{Section, integer},
    value,
};
use crate::model::{Check, CheckKind};

pub(super) const KEYS: &[&str] = &[
    "type", "interval", "timeout", "rise", "fall", "port", "path", "host", "expect",
];

/// Most consecutive results that may be asked for.
const MAX_STREAK: u32 = 1_000;

pub(super) fn check(section: &Section<'_>, report: &mut Report<'_>) -> Option<Check> {
    const SECOND: Duration = Duration::from_secs(1);
    let kinds = [("tcp", false), ("http", true)];
    let later = ["dns", "postgres", "mysql", "redis", "grpc", "udp", "exec"];
    let http = needed(
        section,
        "type",
        "type = \"tcp\"",
        |text| match text {
            "https" => Err(value::Fault::new(
                "type of check \"https\" is not supported yet",
                "use \"tcp\", which connects without TLS, or \"http\" with a `port` that answers without it",
            )),
            text => one_of("type of check", &kinds, &later)(text),
        },
        report,
    );
    let interval = duration(section, "interval", SECOND, report);
    let timeout = duration(
        section,
        "timeout",
        interval.unwrap_or(SECOND).min(SECOND / 2),
        report,
    );
    if let (Some(interval), Some(timeout)) = (interval, timeout) {
        pace(section, interval, timeout, report);
    }
    let rise = streak(section, "rise", 2, report);
    let fall = streak(section, "fall", 3, report);
    let port = match section.number("port", 1..=u32::from(u16::MAX), report) {
        Some(port) => u16::try_from(port.value).ok().map(Some),
        None if section.has("port") => None,
        None => Some(None),
    };
    // Of a type that is wrong nobody knows which keys it takes, but what is wrong with them is told all the same.
    let kind = if http.as_ref().is_none_or(|http| http.value) {
        http_kind(section, report).filter(|_| http.is_some())
    } else {
        for key in ["path", "host", "expect"] {
            if section.has(key) {
                let help = "remove it, or write type = \"http\"";
                report.error(
                    &section.place_of(key),
                    format!("`{key}` means nothing to a check of type \"tcp\""),
                    help,
                );
            }
        }
        Some(CheckKind::Tcp)
    };
    Some(Check {
        kind: kind?,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        port: port?,
    })
}

/// Shortest interval: a check that connects costs both hosts some 50 us of CPU.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Most checks of one backend that run beside each other.
const MAX_OVERLAP: u32 = 10;

fn pace(section: &Section<'_>, interval: Duration, timeout: Duration, report: &mut Report<'_>) {
    if interval < MIN_INTERVAL {
        let message = format!("interval {interval:?} is too short");
        report.error(
            &section.place_of_value("interval"),
            message,
            "use at least \"10ms\"",
        );
    } else if timeout > interval * MAX_OVERLAP {
        let message =
            format!("timeout {timeout:?} is more than {MAX_OVERLAP} times interval {interval:?}");
        report.error(
            &section.place_of_value("timeout"),
            message,
            "make the timeout at most the interval",
        );
    } else if timeout > interval {
        let message = format!(
            "timeout {timeout:?} is longer than interval {interval:?}: checks of one backend overlap"
        );
        report.warning(
            &section.place_of_value("timeout"),
            message,
            "make the timeout at most the interval",
        );
    }
}

fn duration(
    section: &Section<'_>,
    key: &str,
    otherwise: Duration,
    report: &mut Report<'_>,
) -> Option<Duration> {
    if let Some(number) = section.integer(key) {
        let count = number.value;
        report.error(
            &number.span,
            format!("`{key}` = {count} has no unit"),
            format!("write \"{count}s\""),
        );
        return None;
    }
    or(section, key, otherwise, value::duration, report)
}

fn streak(
    section: &Section<'_>,
    key: &str,
    otherwise: u32,
    report: &mut Report<'_>,
) -> Option<u32> {
    if section.has(key) {
        section
            .number(key, 1..=MAX_STREAK, report)
            .map(|number| number.value)
    } else {
        Some(otherwise)
    }
}

fn http_kind(section: &Section<'_>, report: &mut Report<'_>) -> Option<CheckKind> {
    let path = or(section, "path", "/".to_owned(), value::path, report);
    let host = or(
        section,
        "host",
        None,
        |text| value::host(text).map(Some),
        report,
    );
    let expect = expect(section, report);
    Some(CheckKind::Http {
        path: path?,
        host: host?,
        expect: expect?,
    })
}

fn expect(section: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<(u16, u16)>> {
    if !section.has("expect") {
        return Some(vec![(200, 299)]);
    }
    let array = section.array("expect", report)?;
    if array.value.is_empty() {
        report.error(
            &array.span,
            "`expect` is empty, so no answer would pass",
            "write [\"200-299\"]",
        );
        return None;
    }
    let mut ranges = Vec::new();
    for element in &array.value {
        let text = match element.get_ref() {
            DeValue::String(text) => text.to_string(),
            number => integer(number).unwrap_or_else(|| number.type_str().to_owned()),
        };
        ranges.push(accepted(value::statuses(&text), &element.span(), report));
    }
    ranges.into_iter().collect()
}
