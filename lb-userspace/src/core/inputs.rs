//! Everything that the core waits for.

use std::{collections::BTreeSet, future::pending, io};

use lb_common::abi::BackendId;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::message::Message;
use crate::{
    addresses::Announcement, dataplane::Events, health::CheckResult, neighbours::Observation,
    plan::References,
};

/// Something happened.
#[derive(Debug)]
pub(super) enum Input {
    /// A health check has finished.
    Health(CheckResult),
    /// A question or an order.
    Message(Message),
    /// Links or neighbours are not what they were.
    Network(Observation),
    /// A gratuitous ARP is to be sent.
    Announce(Announcement),
    /// Packets wait for the ways towards these backends.
    Wanted(BTreeSet<BackendId>),
    /// A scan of the flow table has finished.
    Scanned(io::Result<References>),
    /// Time has passed.
    Time,
    /// Nobody can ask any more, or the network is no longer watched.
    Ended(&'static str),
}

/// The receiving ends.
pub(super) struct Inputs {
    messages: mpsc::Receiver<Message>,
    results: mpsc::Receiver<CheckResult>,
    observations: mpsc::Receiver<Observation>,
    announcements: mpsc::Receiver<Announcement>,
    events: Option<Events>,
    scans: mpsc::Receiver<io::Result<References>>,
    scans_in: mpsc::Sender<io::Result<References>>,
}

impl Inputs {
    pub(super) fn new(
        messages: mpsc::Receiver<Message>,
        results: mpsc::Receiver<CheckResult>,
        observations: mpsc::Receiver<Observation>,
        announcements: mpsc::Receiver<Announcement>,
        events: Option<Events>,
    ) -> Self {
        let (scans_in, scans) = mpsc::channel(1);
        Self {
            messages,
            results,
            observations,
            announcements,
            events,
            scans,
            scans_in,
        }
    }

    /// Where a scan of the flow table sends what it found.
    pub(super) fn scans(&self) -> mpsc::Sender<io::Result<References>> {
        self.scans_in.clone()
    }

    /// Waits for the next input, until `deadline`. Everything has its turn: thousands of backends have results all the
    /// time, and questions, time and the watchdog must not wait for a moment without any. Results that are there go into
    /// the same reconcile whatever comes first ([`Inputs::pending`]).
    pub(super) async fn next(&mut self, deadline: Instant) -> Input {
        tokio::select! {
            Some(result) = self.results.recv() => Input::Health(result),
            message = self.messages.recv() => message.map_or(Input::Ended("nobody can ask it any more"), Input::Message),
            observation = self.observations.recv() => {
                observation.map_or(Input::Ended("links and neighbours are no longer watched"), Input::Network)
            }
            Some(announcement) = self.announcements.recv() => Input::Announce(announcement),
            Some(found) = self.scans.recv() => Input::Scanned(found),
            wanted = wanted(&mut self.events) => Input::Wanted(wanted),
            () = sleep_until(deadline) => Input::Time,
        }
    }

    /// An input that is there already and goes into the same reconcile as the last one.
    pub(super) fn pending(&mut self) -> Option<Input> {
        let result = self.results.try_recv().map(Input::Health);
        result
            .or_else(|_| self.observations.try_recv().map(Input::Network))
            .ok()
    }

    /// The results of health checks that are there already.
    pub(super) fn results_at_hand(&mut self) -> impl Iterator<Item = CheckResult> {
        std::iter::from_fn(|| self.results.try_recv().ok())
    }

    /// The next result of a health check, until `deadline`.
    pub(super) async fn result(&mut self, deadline: Instant) -> Option<CheckResult> {
        tokio::time::timeout_at(deadline, self.results.recv())
            .await
            .ok()
            .flatten()
    }
}

async fn wanted(events: &mut Option<Events>) -> BTreeSet<BackendId> {
    let Some(reader) = events else {
        return pending().await;
    };
    match reader.neighbours_wanted().await {
        Ok(wanted) => wanted,
        Err(error) => {
            tracing::warn!(%error, "what the program tells can't be read any more; neighbours are still refreshed");
            *events = None;
            BTreeSet::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::core::testing::address;

    #[tokio::test]
    async fn a_question_has_its_turn_among_any_number_of_results() {
        let (messages_in, messages) = mpsc::channel(1);
        let (results_in, results) = mpsc::channel(1_024);
        let (_observations_in, observations) = mpsc::channel(1);
        let (_announcements_in, announcements) = mpsc::channel(1);
        let mut inputs = Inputs::new(messages, results, observations, announcements, None);
        let result = CheckResult {
            pool: "web".to_owned(),
            backend: address(1),
            outcome: Ok(()),
            duration: Duration::ZERO,
        };
        let (reply, _answer) = oneshot::channel();
        messages_in.try_send(Message::Ping { reply }).unwrap();
        let later = Instant::now() + Duration::from_mins(1);
        for _ in 0..10_000 {
            while results_in.try_send(result.clone()).is_ok() {}
            if let Input::Message(Message::Ping { .. }) = inputs.next(later).await {
                return;
            }
        }
        panic!("the question still waits");
    }
}
