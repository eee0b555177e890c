//! What systemd is told (`sd_notify(3)`); without it, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::core::Handle;

/// How long the core may be silent before the watchdog is left to bite.
const PULSE_WITHIN: Duration = Duration::from_secs(5);

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

/// Feeds the watchdog of the service manager, where it has one for this process, for as long as the core answers.
pub(super) fn feed(core: Handle) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Twice in its time, as sd_watchdog_enabled(3) advises.
    let mut ticks = interval((patience / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::spawn(async move {
        loop {
            ticks.tick().await;
            match timeout(PULSE_WITHIN, core.ping()).await {
                Ok(Ok(())) => notify(&[NotifyState::Watchdog]),
                Ok(Err(_)) => return,
                Err(_) => tracing::error!("the core does not answer; the watchdog is not fed"),
            }
        }
    });
}
