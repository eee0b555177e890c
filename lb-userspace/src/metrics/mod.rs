//! The metrics in the text format of Prometheus, and the listener that serves them.
//!
//! What the data plane and the core know is taken from one [`StatusReport`] a scrape, so that all of a scrape is of one
//! moment and nothing is counted twice. What only this process knows (checks, reloads, itself) lives in a [`Registry`].
//! Names follow <https://prometheus.io/docs/practices/naming/>.

mod listener;
mod report;
mod shared;
mod vectors;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use prometheus::{Gauge, Registry, TextEncoder, process_collector::ProcessCollector};

pub use self::listener::{BindError, Listener, bind};
use crate::status::StatusReport;

/// The metrics that are not part of a [`StatusReport`].
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reload_successful: Gauge,
    reload_success_time: Gauge,
}

impl Metrics {
    /// With the metrics of the process itself and of reloads.
    ///
    /// # Errors
    /// None that the operator could cause: a name was used twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let reload_successful = Gauge::new(
            "lb_config_last_reload_successful",
            "Whether the configuration was applied the last time it was read (1) or refused (0).",
        )?;
        let reload_success_time = Gauge::new(
            "lb_config_last_reload_success_timestamp_seconds",
            "When a configuration was last applied.",
        )?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(reload_successful.clone()))?;
        registry.register(Box::new(reload_success_time.clone()))?;
        Ok(Self {
            registry,
            reload_successful,
            reload_success_time,
        })
    }

    /// Where other parts of the agent register theirs.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Notes that a configuration was applied at `now`, or refused.
    pub fn reloaded(&self, applied: bool, now: SystemTime) {
        self.reload_successful.set(if applied { 1.0 } else { 0.0 });
        if applied {
            let since = now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            self.reload_success_time.set(since.as_secs_f64());
        }
    }

    /// All metrics as a scrape gets them.
    ///
    /// # Errors
    /// None that the operator could cause: a name or label was refused.
    pub fn exposition(&self, report: &StatusReport) -> Result<String, prometheus::Error> {
        let mut families = Vec::new();
        for family in self.registry.gather() {
            let name = family.name().to_owned();
            families.push((name, TextEncoder::new().encode_to_string(&[family])?));
        }
        let of_report = report::families(report);
        families.extend(of_report.into_iter().filter_map(vectors::Family::text));
        families.sort_unstable();
        Ok(families.into_iter().map(|(_, text)| text).collect())
    }
}
