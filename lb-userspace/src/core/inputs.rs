//! Everything that the core waits for.

use std::{collections::BTreeSet, future::pending, io};

use lb_common::abi::BackendId;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::message::Message;
use crate::{
    addresses::Announcement,
    dataplane::{Events, Fresh, Losses},
    health::CheckResult,
    neighbours::Observation,
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
    /// Another program was loaded for the reload under way, or could not be.
    Loaded(Result<Fresh, String>),
    /// Somebody else has taken something from the data plane; nothing, once it is all there again.
    Lost(Losses),
    /// Time has passed.
    Time,
    /// Nobody can ask any more, or the network is no longer watched.
    Ended(&'static str),
}

/// The receiving ends.
pub(super) struct Inputs {
    /// `None` as long as somebody else answers them.
    messages: Option<mpsc::Receiver<Message>>,
    results: mpsc::Receiver<CheckResult>,
    observations: mpsc::Receiver<Observation>,
    announcements: mpsc::Receiver<Announcement>,
    events: Option<Events>,
    scans: mpsc::Receiver<io::Result<References>>,
    scans_in: mpsc::Sender<io::Result<References>>,
    loaded: mpsc::Receiver<Result<Fresh, String>>,
    loaded_in: mpsc::Sender<Result<Fresh, String>>,
    losses: mpsc::Receiver<Losses>,
    losses_in: mpsc::Sender<Losses>,
}

impl Inputs {
    pub(super) fn new(
        results: mpsc::Receiver<CheckResult>,
        observations: mpsc::Receiver<Observation>,
        announcements: mpsc::Receiver<Announcement>,
        events: Option<Events>,
    ) -> Self {
        let (scans_in, scans) = mpsc::channel(1);
        let (loaded_in, loaded) = mpsc::channel(1);
        let (losses_in, losses) = mpsc::channel(1);
        Self {
            messages: None,
            results,
            observations,
            announcements,
            events,
            scans,
            scans_in,
            loaded,
            loaded_in,
            losses,
            losses_in,
        }
    }

    /// With questions and orders from now on.
    pub(super) fn with_messages(self, messages: mpsc::Receiver<Message>) -> Self {
        Self {
            messages: Some(messages),
            ..self
        }
    }

    /// Where a program that was loaded goes.
    pub(super) fn loaded(&self) -> mpsc::Sender<Result<Fresh, String>> {
        self.loaded_in.clone()
    }

    /// Where it is told what is lost.
    pub(super) fn losses(&self) -> mpsc::Sender<Losses> {
        self.losses_in.clone()
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
            message = asked(&mut self.messages) => message.map_or(Input::Ended("nobody can ask it any more"), Input::Message),
            observation = self.observations.recv() => {
                observation.map_or(Input::Ended("links and neighbours are no longer watched"), Input::Network)
            }
            Some(announcement) = self.announcements.recv() => Input::Announce(announcement),
            Some(found) = self.scans.recv() => Input::Scanned(found),
            Some(loaded) = self.loaded.recv() => Input::Loaded(loaded),
            Some(losses) = self.losses.recv() => Input::Lost(losses),
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

async fn asked(messages: &mut Option<mpsc::Receiver<Message>>) -> Option<Message> {
    match messages {
        Some(messages) => messages.recv().await,
        None => pending().await,
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
        let inputs = Inputs::new(results, observations, announcements, None);
        let mut inputs = inputs.with_messages(messages);
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
