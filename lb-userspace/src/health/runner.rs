//! The tasks that run the checks.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{
    CheckResult, Failed, Metrics,
    probe::{self, Failure},
    schedule::{Schedule, first_checks_within},
};
use crate::model::{Check, Pool};

/// The running checks. Dropping it ends them.
#[derive(Debug)]
pub struct Checks {
    tasks: BTreeMap<(String, SocketAddr), Task>,
    results: mpsc::Sender<CheckResult>,
    metrics: Metrics,
    /// Tasks started so far; spreads them over the interval.
    started: u32,
}

#[derive(Debug)]
struct Task {
    what: Arc<What>,
    handle: JoinHandle<()>,
}

/// What is checked; a task keeps running while a new configuration says the same.
#[derive(Debug, PartialEq, Eq)]
struct What {
    pool: String,
    backend: SocketAddr,
    /// The backend's name, for the metrics.
    name: String,
    check: Check,
}

impl Checks {
    /// No checks yet; [`Checks::reconfigure`] starts them. Every result goes to `results`.
    #[must_use]
    pub fn new(results: mpsc::Sender<CheckResult>, metrics: Metrics) -> Self {
        Self {
            tasks: BTreeMap::new(),
            results,
            metrics,
            started: 0,
        }
    }

    /// Makes the running checks those of `pools`: starts, stops, and leaves unchanged ones undisturbed. Must be called
    /// inside a tokio runtime. Results of a check that was stopped may still arrive afterwards.
    ///
    /// Thresholds are not the checks' business: a change of `rise` or `fall` disturbs none.
    pub fn reconfigure(&mut self, pools: &[Pool]) {
        let mut wanted = BTreeMap::new();
        for pool in pools {
            let Some(check) = &pool.check else { continue };
            for backend in &pool.backends {
                let what = What {
                    pool: pool.name.clone(),
                    backend: backend.address,
                    name: backend.name.clone(),
                    check: Check {
                        rise: 1,
                        fall: 1,
                        ..check.clone()
                    },
                };
                wanted.insert((pool.name.clone(), backend.address), what);
            }
        }

        // All that ends, ends first: a name may go from one backend to another, and its metrics with it.
        let ended: Vec<_> = self
            .tasks
            .iter()
            .filter(|(key, task)| wanted.get(*key) != Some(&*task.what))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            self.stop(&key);
        }
        wanted.retain(|key, _| !self.tasks.contains_key(key));
        let within = first_checks_within(wanted.len());
        for (key, what) in wanted {
            let task = self.start(what, within);
            self.tasks.insert(key, task);
        }
    }

    fn start(&mut self, what: What, within: Duration) -> Task {
        self.metrics.begin(&what.pool, &what.name);
        let what = Arc::new(what);
        let phase = phase(self.started);
        let schedule = Schedule::new(Instant::now(), what.check.interval, within, phase);
        self.started = self.started.wrapping_add(1);
        let handle = tokio::spawn(repeat(
            Arc::clone(&what),
            schedule,
            self.results.clone(),
            self.metrics.clone(),
        ));
        Task { what, handle }
    }

    fn stop(&mut self, key: &(String, SocketAddr)) {
        if let Some(task) = self.tasks.remove(key) {
            task.handle.abort();
            self.metrics.end(&task.what.pool, &task.what.name);
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.handle.abort();
        }
    }
}

/// Where in the interval the task number `started` has its place: the multiples of the golden ratio lie evenly between
/// 0 and 1 however many there are, and a new one falls into the widest gap.
fn phase(started: u32) -> f64 {
    (f64::from(started) * 0.618_033_988_749_895).fract()
}

async fn repeat(
    what: Arc<What>,
    schedule: Schedule,
    results: mpsc::Sender<CheckResult>,
    metrics: Metrics,
) {
    let target = SocketAddr::new(
        what.backend.ip(),
        what.check.port.unwrap_or(what.backend.port()),
    );
    let lacking = AtomicBool::new(false);
    let probe = || async {
        let start = Instant::now();
        (probe::run(&what.check, target).await, start.elapsed())
    };
    let deliver = |(outcome, duration)| {
        let (results, metrics, what, lacking) = (&results, &metrics, &what, &lacking);
        async move {
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(Failure::Backend(reason)) => Err(Failed::Answer(reason)),
                Err(Failure::Timeout(reason)) => Err(Failed::Timeout(reason)),
                Err(Failure::Local(reason)) => {
                    metrics.record_void(&what.pool, &what.name);
                    if !lacking.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            pool = what.pool,
                            backend = what.name,
                            reason,
                            "this host can't run the check, so the backend's state stays as it is"
                        );
                    }
                    return !results.is_closed();
                }
            };
            lacking.store(false, Ordering::Relaxed);
            let result = CheckResult {
                pool: what.pool.clone(),
                backend: what.backend,
                outcome,
                duration,
            };
            metrics.record(&what.name, &result);
            results.send(result).await.is_ok()
        }
    };
    schedule.run(probe, deliver).await;
}

#[cfg(test)]
mod tests;
