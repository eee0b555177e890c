//! The agent's log, line by line, as events.

use std::time::SystemTime;

use serde_json::Value;

/// A line of the agent's JSON log.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was written, to the microsecond.
    pub time: SystemTime,
    /// The whole line.
    pub line: Value,
}

impl Event {
    /// The events of a log; lines that are none (a panic, a message of the loader) are left out.
    pub(super) fn parse_all(log: &str) -> Vec<Self> {
        log.lines().filter_map(Self::parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let time = humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()?;
        Some(Self { time, line })
    }

    /// A field as text; empty where there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        let nested = &self.line["fields"][name];
        let value = if nested.is_null() {
            &self.line[name]
        } else {
            nested
        };
        value.as_str().unwrap_or_default()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        self.field("message")
    }

    /// Whether it tells that a backend went `up` or `down`.
    #[must_use]
    pub fn is_backend_state(&self, backend: &str, state: &str) -> bool {
        self.field("event") == "backend_state"
            && self.field("backend") == backend
            && self.field("state") == state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_transition_is_read() {
        let log = concat!(
            "thread panicked\n",
            r#"{"timestamp":"2026-01-02T03:04:05.678901Z","level":"WARN","fields":{"message":"backend is down","#,
            r#""event":"backend_state","backend":"web1","pool":"web","state":"down","reason":"refused"}}"#,
            "\n"
        );
        let events = Event::parse_all(log);
        assert_eq!(events.len(), 1);
        assert!(
            events[0].is_backend_state("web1", "down"),
            "{:?}",
            events[0]
        );
        assert_eq!(events[0].field("reason"), "refused");
        let micros = events[0]
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .subsec_micros();
        assert_eq!(micros, 678_901);
    }
}
