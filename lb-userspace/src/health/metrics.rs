//! What the checks measure of themselves, as Prometheus metrics.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::CheckResult;

/// Durations and results by pool and backend. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    duration: HistogramVec,
    results: IntCounterVec,
}

/// Bounds in seconds: a check in a data centre takes well under a millisecond, a troubled one up to its timeout.
const BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

const RESULTS: [&str; 3] = ["pass", "fail", "void"];
const LABELS: &[&str] = &["pool", "backend"];

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// Where `registry` already holds metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "lb_health_check_duration_seconds",
                "How long health checks took, failed ones included.",
            )
            .buckets(BUCKETS.to_vec()),
            LABELS,
        )?;
        let results = IntCounterVec::new(
            Opts::new(
                "lb_health_checks_total",
                "Health checks finished, by result: pass, fail, or void where this host could not run the check.",
            ),
            &["pool", "backend", "result"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(results.clone()))?;
        Ok(Self { duration, results })
    }

    /// Takes one result in; `backend` is the backend's name.
    pub(crate) fn record(&self, backend: &str, result: &CheckResult) {
        let verdict = if result.outcome.is_ok() {
            "pass"
        } else {
            "fail"
        };
        self.duration
            .with_label_values(&[result.pool.as_str(), backend])
            .observe(result.duration.as_secs_f64());
        self.results
            .with_label_values(&[result.pool.as_str(), backend, verdict])
            .inc();
    }

    /// Counts a check that said nothing about the backend.
    pub(super) fn record_void(&self, pool: &str, backend: &str) {
        self.results
            .with_label_values(&[pool, backend, "void"])
            .inc();
    }

    /// Makes the series of a backend, so that they read 0 before the first result.
    pub(super) fn begin(&self, pool: &str, backend: &str) {
        for verdict in RESULTS {
            self.results
                .with_label_values(&[pool, backend, verdict])
                .inc_by(0);
        }
    }

    /// Removes the series of a backend that is no longer checked.
    pub(super) fn end(&self, pool: &str, backend: &str) {
        // A series that was never made is no error here: removing is all that is asked.
        for verdict in RESULTS {
            drop(self.results.remove_label_values(&[pool, backend, verdict]));
        }
        drop(self.duration.remove_label_values(&[pool, backend]));
    }
}
