//! Families of series that live for one scrape, and their text.
//!
//! Thousands of services and backends are a hundred thousand series. The vectors of the `prometheus` crate keep a
//! description beside each of them, and copy all when they are gathered: hundreds of MiB and a second of CPU a scrape.
//! These hold what their line says. The format is <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;

use crate::status::Traffic;

/// The series of one name.
pub(super) struct Family {
    name: String,
    help: String,
    kind: &'static str,
    /// Names of the labels in the order of the text, and where the value of each stands among those given.
    labels: Vec<(&'static str, usize)>,
    /// By labels as text.
    series: BTreeMap<String, Value>,
}

#[derive(Clone, Copy)]
enum Value {
    Count(u64),
    Seconds(f64),
}

impl Family {
    /// Counters.
    pub(super) fn counters(
        name: impl Into<String>,
        help: impl Into<String>,
        labels: &[&'static str],
    ) -> Self {
        Self::new("counter", name.into(), help.into(), labels)
    }

    /// Gauges.
    pub(super) fn gauges(
        name: impl Into<String>,
        help: impl Into<String>,
        labels: &[&'static str],
    ) -> Self {
        Self::new("gauge", name.into(), help.into(), labels)
    }

    fn new(kind: &'static str, name: String, help: String, labels: &[&'static str]) -> Self {
        let mut labels: Vec<_> = labels.iter().copied().zip(0..).collect();
        labels.sort_unstable();
        Self {
            name,
            help,
            kind,
            labels,
            series: BTreeMap::new(),
        }
    }

    /// Sets the series with these values of the labels.
    pub(super) fn set(&mut self, values: &[&str], count: u64) {
        self.series.insert(self.key(values), Value::Count(count));
    }

    /// Adds to the series with these values of the labels.
    pub(super) fn add(&mut self, values: &[&str], more: u64) {
        let key = self.key(values);
        match self.series.entry(key).or_insert(Value::Count(0)) {
            Value::Count(count) => *count = count.saturating_add(more),
            Value::Seconds(_) => {}
        }
    }

    /// Sets the series with these values of the labels to a time.
    pub(super) fn set_seconds(&mut self, values: &[&str], seconds: f64) {
        self.series
            .insert(self.key(values), Value::Seconds(seconds));
    }

    fn key(&self, values: &[&str]) -> String {
        let mut key = String::new();
        for (label, place) in &self.labels {
            key.push(if key.is_empty() { '{' } else { ',' });
            key.push_str(label);
            key.push_str("=\"");
            escape(&mut key, values.get(*place).copied().unwrap_or_default());
            key.push('"');
        }
        if !key.is_empty() {
            key.push('}');
        }
        key
    }

    /// Its name and its lines; `None` where it has no series.
    pub(super) fn text(self) -> Option<(String, String)> {
        if self.series.is_empty() {
            return None;
        }
        let Self {
            name, help, kind, ..
        } = &self;
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in &self.series {
            let value = match value {
                Value::Count(count) => count.to_string(),
                Value::Seconds(seconds) => seconds.to_string(),
            };
            text.extend([name, labels.as_str(), " ", value.as_str(), "\n"]);
        }
        Some((self.name, text))
    }
}

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// The counters of something that has traffic.
pub(super) struct TrafficFamilies {
    packets: Family,
    bytes: Family,
    new_flows: Family,
}

impl TrafficFamilies {
    /// Of a `what`; `over` says what is added up in it.
    pub(super) fn new(what: &str, over: &str, labels: &[&'static str]) -> Self {
        let directed: Vec<_> = labels.iter().copied().chain(["direction"]).collect();
        let per =
            format!("a {what}{over}, forward (towards backends) or reverse (towards clients)");
        Self {
            packets: Family::counters(
                format!("lb_{what}_packets_total"),
                format!("Packets of {per}."),
                &directed,
            ),
            bytes: Family::counters(
                format!("lb_{what}_bytes_total"),
                format!("Bytes of {per}, whole frames as received."),
                &directed,
            ),
            new_flows: Family::counters(
                format!("lb_{what}_new_flows_total"),
                format!("Flows made for a {what}{over}."),
                labels,
            ),
        }
    }

    pub(super) fn add(&mut self, labels: &[&str], traffic: &Traffic) {
        let directed = |direction| {
            labels
                .iter()
                .copied()
                .chain([direction])
                .collect::<Vec<_>>()
        };
        let (forward, reverse) = (directed("forward"), directed("reverse"));
        self.packets.add(&forward, traffic.forward_packets);
        self.packets.add(&reverse, traffic.reverse_packets);
        self.bytes.add(&forward, traffic.forward_bytes);
        self.bytes.add(&reverse, traffic.reverse_bytes);
        self.new_flows.add(labels, traffic.new_flows);
    }

    pub(super) fn into_families(self) -> [Family; 3] {
        [self.packets, self.bytes, self.new_flows]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut family = Family::gauges("g", "Help.", &["b", "a"]);
        family.set(&["x\"y\\z\n", "1"], 7);
        let (name, text) = family.text().unwrap();
        assert_eq!(name, "g");
        assert_eq!(
            text,
            "# HELP g Help.\n# TYPE g gauge\ng{a=\"1\",b=\"x\\\"y\\\\z\\n\"} 7\n"
        );
    }

    #[test]
    fn equal_labels_are_one_series() {
        let mut family = Family::counters("c", "Help.", &["a"]);
        family.add(&["1"], 2);
        family.add(&["1"], 3);
        let (_, text) = family.text().unwrap();
        assert!(text.ends_with("\nc{a=\"1\"} 5\n"), "{text}");
        assert!(Family::counters("c", "Help.", &[]).text().is_none());
    }
}
