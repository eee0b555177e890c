//! From what is wanted to what is in force.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    desired::{desired, watch},
    host::Host,
    plane::PlaneLost,
    task::Core,
};
use crate::{
    dataplane::TableError,
    plan::{Change, Hop, Salvage, plan},
};

/// How long after a failure the first attempt comes, and the last.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// When to try again what has failed.
#[derive(Debug, Default)]
pub(super) struct Retry {
    at: Option<Instant>,
    delay: Duration,
}

impl Retry {
    pub(super) fn due(&self) -> Option<Instant> {
        self.at
    }

    fn failed(&mut self) {
        self.delay = (self.delay * 2).clamp(FIRST_RETRY, LAST_RETRY);
        self.at = Some(Instant::now() + self.delay);
    }
}

impl<H: Host> Core<H> {
    /// Makes maps and links what they should be. What fails is tried again; the rest stays as it was.
    pub(super) async fn reconcile(&mut self) -> Result<(), PlaneLost> {
        let failures = self.reconcile_maps().await?;
        if let Some(error) = failures.first() {
            self.retry.failed();
            let seconds = self.retry.delay.as_secs_f64();
            let more = match failures.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} changes more)"),
            };
            tracing::error!(
                event = "reconcile_failed",
                "{error}{more}; it is tried again in {seconds} s"
            );
        } else {
            self.retry = Retry::default();
        }
        for error in self.attach(false).await? {
            tracing::error!(event = "attach_failed", "{error}");
        }
        self.quiet_redirects().await?;
        if let Err(error) = self.keep_addresses().await {
            tracing::error!(event = "addresses_failed", "{error}");
        }
        Ok(())
    }

    /// Plans and applies; gives what failed.
    pub(super) async fn reconcile_maps(&mut self) -> Result<Vec<TableError>, PlaneLost> {
        self.follow_backends(Duration::ZERO).await;
        self.forget_remade().await?;
        let desired = desired(&self.model, &self.health, &self.network, self.constants);
        let plan = plan(&desired, &self.actual, Instant::now().into_std());
        self.tell_refused(plan.refused.iter().map(ToString::to_string).collect());
        let failures = self.apply(plan.changes).await?;
        self.actual.book = plan.book;
        self.report.reconciles += 1;
        if failures.is_empty() {
            self.tell_transitions();
        }
        self.tell_ways();
        Ok(failures)
    }

    /// Applies every change that can be; gives the errors of those that can't, and not those that build on them. What
    /// is in force afterwards is known either way.
    async fn apply(&mut self, changes: Vec<Change>) -> Result<Vec<TableError>, PlaneLost> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut tables = self.actual.tables.clone();
        let (tables, done, failures) = self
            .plane
            .with(move |plane| {
                let mut salvage = Salvage::default();
                let (mut done, mut failures) = (0, Vec::new());
                for change in &changes {
                    let applied = if salvage.may_follow(change, &tables) {
                        plane.apply(change).map_err(|error| failures.push(error))
                    } else {
                        Err(())
                    };
                    if applied.is_ok() {
                        tracing::trace!(?change, "applied");
                        tables.apply(change);
                        done += 1;
                    } else {
                        salvage.leave_out(change, &tables);
                    }
                }
                (tables, done, failures)
            })
            .await?;
        self.actual.tables = tables;
        self.report.changes += done;
        tracing::debug!(changes = done, "reconciled");
        if !failures.is_empty() {
            self.report.reconcile_failures += 1;
            // A change may have been carried out in part.
            if let Ok(tables) = self.fresh_tables().await? {
                self.actual.tables = tables;
            }
        }
        Ok(failures)
    }

    /// Compares the maps and links in force with what they should be, and repairs what somebody else has changed.
    pub(super) async fn compare(&mut self) -> Result<(), PlaneLost> {
        if self.retry.due().is_some() {
            return Ok(());
        }
        self.quiet.doubt();
        self.reconcile().await?;
        let fresh = match self.fresh_tables().await? {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(event = "compare_failed", "{error}");
                return Ok(());
            }
        };
        let before = self.report.changes;
        self.actual.tables = fresh;
        let links = self.compare_links().await?;
        self.try_native_again().await;
        self.reconcile().await?;
        let repaired = self.report.changes - before;
        if repaired != 0 || links != 0 {
            tracing::warn!(
                event = "drift",
                changes = repaired,
                links,
                "something else has changed the data plane; it is repaired"
            );
        }
        Ok(())
    }

    /// Has the ways to all backends watched that may have flows; waits so long for what is not known of the new ones.
    pub(super) async fn follow_backends(&mut self, patience: Duration) {
        let watch = watch(&self.model, &self.actual.tables);
        if watch == self.watch {
            return;
        }
        match self.host.watch(watch.clone(), patience).await {
            Ok(network) => {
                self.network = network;
                self.watch = watch;
            }
            Err(error) => tracing::error!(event = "watch_failed", "{error}"),
        }
    }

    /// Tells who went up or down, now that the maps say so.
    fn tell_transitions(&mut self) {
        for change in self.transitions.drain(..) {
            let (backend, address, pool, reason) =
                (&change.name, change.address, &change.pool, &change.reason);
            if change.up {
                tracing::info!(event = "backend_state", backend, %address, pool, state = "up", reason, "backend is up");
            } else {
                tracing::warn!(event = "backend_state", backend, %address, pool, state = "down", reason, "backend is down");
            }
        }
    }

    fn tell_refused(&mut self, refused: Vec<String>) {
        for line in refused.iter().filter(|line| !self.refused.contains(line)) {
            tracing::error!(event = "plan_refused", "{line}");
        }
        self.refused = refused;
    }

    /// Tells which backends can't be forwarded to, and which can again.
    fn tell_ways(&mut self) {
        let wrong = |(address, way): (&std::net::IpAddr, &crate::neighbours::Resolution)| {
            Some((*address, way.hop.clone(), way.reason.as_ref()?.to_string()))
        };
        let mut now = std::collections::BTreeMap::new();
        for (address, hop, reason) in self.network.ways.iter().filter_map(wrong) {
            if self.ways.get(&address) != Some(&reason) {
                if hop == Hop::Unreachable {
                    tracing::error!(event = "backend_unreachable", %address, "new flows don't go to {address}: {reason}");
                } else {
                    tracing::info!(event = "neighbour_unknown", %address, "{reason}");
                }
            }
            now.insert(address, reason);
        }
        for address in self
            .ways
            .keys()
            .filter(|address| !now.contains_key(address))
        {
            if self.network.ways.contains_key(address) {
                tracing::info!(event = "neighbour_known", %address, "the way to {address} is known");
            }
        }
        self.ways = now;
    }
}
