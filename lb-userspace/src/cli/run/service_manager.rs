//! What systemd is told (`sd_notify(3)`); without it, nothing happens.

use std::{future::pending, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The agent serves.
pub(super) fn ready(contents: &str) {
    notify(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving {contents}")),
    ]);
}

/// The configuration is being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("detaching")]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// The watchdog of the service manager, if it has one for this process.
#[derive(Debug)]
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    pub(super) fn start() -> Self {
        Self(sd_notify::watchdog_enabled().map(|patience| {
            // Twice in its time, as sd_watchdog_enabled(3) advises.
            let mut ticks = interval((patience / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// When it is time to feed it; never where there is none.
    pub(super) async fn tick(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => pending().await,
        }
    }

    #[expect(clippy::unused_self, reason = "there must be one to be fed")]
    pub(super) fn feed(&self) {
        notify(&[NotifyState::Watchdog]);
    }
}
