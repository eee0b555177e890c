//! A small HTTP/1.1 client that knows when each request started, how it ended and which server answered.
//!
//! It runs in the client's namespace on one thread. Servers of the suites answer with their own name as the body, so
//! that an answer tells the backend. [`Client`] has the shapes of load that the suites need: one connection after the
//! other, thousands open at once ([`Client::crowd`]), a constant rate beside the test ([`load::Load`]).

mod client;
mod connection;
pub mod load;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub use client::Client;
pub use connection::Connection;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body as text, without white space around it.
    pub body: String,
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Which connection of its load it went over, from 0.
    pub connection: usize,
    /// When it started: before connecting, where it has a connection of its own.
    pub started: SystemTime,
    /// How long until the whole answer was there, or the failure.
    pub took: Duration,
    /// The answer, or what failed and how.
    pub outcome: Result<Answer, String>,
}

impl Exchange {
    /// The body of an answer with status 200, otherwise what happened.
    ///
    /// # Errors
    /// The failure, or the other status.
    pub fn server(&self) -> Result<&str, String> {
        match &self.outcome {
            Ok(Answer { status: 200, body }) => Ok(body),
            Ok(Answer { status, body }) => Err(format!("status {status}: {body}")),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// When the answer or the failure was there.
    #[must_use]
    pub fn ended(&self) -> SystemTime {
        self.started + self.took
    }
}

/// How many requests each server answered; failures under their text.
#[must_use]
pub fn tally(exchanges: &[Exchange]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for exchange in exchanges {
        let who = match exchange.server() {
            Ok(server) => server.to_owned(),
            Err(failure) => format!("failed: {failure}"),
        };
        *counts.entry(who).or_default() += 1;
    }
    counts
}

/// The requests that did not get a 200, a line each, at most ten.
#[must_use]
pub fn failures(exchanges: &[Exchange]) -> Vec<String> {
    let failed = exchanges.iter().filter_map(|exchange| {
        let failure = exchange.server().err()?;
        let started = humantime::format_rfc3339_micros(exchange.started);
        Some(format!("{started} after {:?}: {failure}", exchange.took))
    });
    failed.take(10).collect()
}
