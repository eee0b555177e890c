//! What somebody else takes from the data plane while the agent runs: pins that are removed, links that are detached.
//!
//! It is looked for and not waited for. inotify tells of a removed pin, but not of a bpffs that is unmounted under an open
//! directory; and of a detached link the kernel tells nobody.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::MissedTickBehavior};

use super::{
    host::Host,
    inputs::Inputs,
    plane::PlaneLost,
    task::{Core, Next},
};
use crate::dataplane::{Dataplane, Losses};

/// How often it is looked for: a detached link is an outage.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl<H: Host> Core<H> {
    /// Tells itself what is lost, as long as something is, and once that all is there again.
    pub(super) fn watch_for_losses(&mut self, inputs: &Inputs) {
        let (readings, losses_in) = (Arc::clone(&self.readings), inputs.losses());
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut told = Losses::default();
            loop {
                ticks.tick().await;
                let readings = Arc::clone(&readings);
                let Ok(found) = spawn_blocking(move || readings.losses()).await else {
                    continue;
                };
                if found.is_empty() && told.is_empty() {
                    continue;
                }
                told.clone_from(&found);
                // Closed only when the core has ended.
                drop(losses_in.send(found).await);
            }
        });
    }

    /// Makes pins again that are gone, and has links made again that are off.
    pub(super) async fn recover(&mut self, losses: Losses) -> Result<Next, PlaneLost> {
        let mut next = Next::Wait;
        for interface in &losses.links {
            if self.attachments.is_on(interface) {
                tracing::warn!(
                    event = "link_lost",
                    interface,
                    "something else has taken the program off the interface; it is attached again"
                );
                self.attachments.forget(interface);
                next = Next::Reconcile;
            }
        }
        if losses.pins.is_empty() {
            self.obstacle = None;
            return Ok(next);
        }
        let count = losses.pins.len();
        let gone = format!(
            "{count} pins are gone ({}), so that the next agent would find nothing to adopt",
            losses.pins.join(", ")
        );
        match self.plane.with(Dataplane::restore).await? {
            Ok(()) => {
                self.obstacle = None;
                tracing::warn!(event = "pins_restored", "{gone}; they are made again");
            }
            Err(error) => {
                let obstacle = format!("{gone}, and they can't be made again: {error}");
                if self.obstacle.as_ref() != Some(&obstacle) {
                    tracing::error!(
                        event = "pins_lost",
                        "{obstacle}\n   traffic goes on; it is tried again all the time"
                    );
                }
                self.obstacle = Some(obstacle);
            }
        }
        Ok(next)
    }
}
