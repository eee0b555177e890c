//! Health checks: whether a backend of a pool answers.
//!
//! [`Checks`] owns one task for each (pool, backend) that is to be checked and sends a [`CheckResult`] for every check
//! that finished. It decides nothing. [`State`] decides: the core holds one for each (pool, backend), feeds it the
//! results and acts on the [`Transition`]s. Neither touches maps.
//!
//! A backend that dies is reported within `fall` x interval + timeout: a check starts every interval however long the
//! one before takes, and ends within its timeout.

mod http;
mod metrics;
mod probe;
mod runner;
mod schedule;
mod state;
mod tcp;

use std::{net::SocketAddr, time::Duration};

pub use metrics::Metrics;
pub use runner::Checks;
pub use schedule::first_checks_within;
pub use state::{State, Tally, Transition};

/// Why a check did not pass, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The backend said that it does not serve, or answered badly.
    Answer(String),
    /// The time was over, which may be the fault of a busy host or network too.
    Timeout(String),
}

impl Failed {
    /// The words.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Answer(reason) | Self::Timeout(reason) => reason,
        }
    }
}

impl From<&str> for Failed {
    fn from(reason: &str) -> Self {
        Self::Answer(reason.to_owned())
    }
}

/// What one finished check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Name of the pool.
    pub pool: String,
    /// The backend, by the address and port it serves at (not the port that was checked).
    pub backend: SocketAddr,
    /// Passed, or why not.
    pub outcome: Result<(), Failed>,
    /// How long the check took.
    pub duration: Duration,
}
