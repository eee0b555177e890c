//! Rise and fall: consecutive results become up and down. Pure: `now` is a parameter.

use std::time::{Duration, SystemTime};

use super::{CheckResult, Failed};
use crate::status::ChecksReport;

/// Whether a backend of a pool is up, and how far it is from the other state.
///
/// `rise` consecutive passes bring it up, `fall` consecutive failures take it down; a result of the other kind starts
/// the count again. While nothing is known the first answer decides alone, so that a fresh start neither sends clients
/// to a dead server for `fall` checks nor keeps a healthy one waiting for `rise`. A timeout is no answer: a backend
/// stays unknown, which takes no flows either, until `fall` of them in a row take it down, and one pass brings it up.
#[derive(Clone, Debug)]
pub struct State {
    up: Option<bool>,
    rise: u32,
    fall: u32,
    /// Consecutive results that speak against `up`.
    against: u32,
    /// Some result of this agent's own agreed with `up`; until then the reason is where it was taken from.
    confirmed: bool,
    since: SystemTime,
    reason: String,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub up: bool,
    /// Why, in words.
    pub reason: String,
}

impl State {
    /// A backend with no results yet.
    ///
    /// `initial` is what the maps in force say where they were adopted (`Some(true)`: in rotation), and `None` where
    /// nothing is known. `rise` and `fall` of 0 count as 1.
    #[must_use]
    pub fn new(initial: Option<bool>, rise: u32, fall: u32, now: SystemTime) -> Self {
        let reason = match initial {
            Some(true) => "was up when the agent started",
            Some(false) => "was down when the agent started",
            None => "no check has finished yet",
        };
        Self {
            up: initial,
            rise: rise.max(1),
            fall: fall.max(1),
            against: 0,
            confirmed: false,
            since: now,
            reason: reason.to_owned(),
        }
    }

    /// Takes one result in; says what changed, if anything did.
    pub fn observe(&mut self, outcome: &Result<(), Failed>, now: SystemTime) -> Option<Transition> {
        let passed = outcome.is_ok();
        if self.up.is_none() && passed {
            // Timeouts that have not decided are no part of what is told now.
            self.against = 0;
        }
        let needed = match self.up {
            None if matches!(outcome, Err(Failed::Timeout(_))) => self.fall,
            None => 1,
            Some(up) if up == passed => {
                self.against = 0;
                if !self.confirmed {
                    self.confirmed = true;
                    self.reason = reason(outcome, 1);
                }
                return None;
            }
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            if self.up.is_none() {
                self.reason = reason(outcome, self.against);
            }
            return None;
        }
        self.reason = reason(outcome, self.against);
        self.confirmed = true;
        self.up = Some(passed);
        self.against = 0;
        self.since = now;
        Some(Transition {
            up: passed,
            reason: self.reason.clone(),
        })
    }

    /// Changes the thresholds, as a reload may; state and count stay.
    pub fn set_thresholds(&mut self, rise: u32, fall: u32) {
        self.rise = rise.max(1);
        self.fall = fall.max(1);
    }

    /// `None` while no check has decided and nothing was adopted.
    #[must_use]
    pub fn is_up(&self) -> Option<bool> {
        self.up
    }

    /// When the state began.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// Why it is in that state, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What so many consecutive results say, the last being `outcome`.
fn reason(outcome: &Result<(), Failed>, count: u32) -> String {
    match (outcome, count) {
        (Ok(()), 1) => "check passed".to_owned(),
        (Ok(()), count) => format!("{count} checks passed"),
        (Err(failed), 1) => failed.reason().to_owned(),
        (Err(failed), count) => format!("{} ({count} checks failed)", failed.reason()),
    }
}

/// Counts of results, for the report.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    last: String,
    last_duration: Duration,
}

impl Tally {
    /// Counts one result.
    pub fn record(&mut self, result: &CheckResult) {
        match &result.outcome {
            Ok(()) => {
                self.passed += 1;
                "passed".clone_into(&mut self.last);
            }
            Err(failed) => {
                self.failed += 1;
                failed.reason().clone_into(&mut self.last);
            }
        }
        self.last_duration = result.duration;
    }

    /// As the status report holds it.
    #[must_use]
    pub fn report(&self) -> ChecksReport {
        ChecksReport {
            passed: self.passed,
            failed: self.failed,
            last: self.last.clone(),
            last_duration_seconds: self.last_duration.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests;
