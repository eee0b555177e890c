//! What the core is told and asked, and the handle through which it happens.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{model::Model, status::StatusReport};

/// What a reload changed, or why nothing was changed, in lines for people.
pub type ReloadReply = Result<Applied, Vec<String>>;

/// Whether everything was removed, or what could not be.
pub(crate) type ShutdownReply = Result<(), Vec<String>>;

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// One line a change; none where the file says what already was so.
    pub applied: Vec<String>,
    /// What in the configuration invites trouble, and what came of applying it that was not asked for.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A question or an order to the core.
#[derive(Debug)]
pub(crate) enum Message {
    /// Apply this configuration. What only the host can know is checked by the core.
    Reload {
        model: Box<Model>,
        reply: oneshot::Sender<ReloadReply>,
    },
    /// The configuration could not be read; the report says so until one is applied.
    ConfigRefused { reason: String },
    /// A part of the agent does not work although traffic flows, or works again.
    Problem {
        part: &'static str,
        problem: Option<String>,
    },
    /// Make a report.
    Status {
        reply: oneshot::Sender<StatusReport>,
    },
    /// Say that the core is alive.
    Ping { reply: oneshot::Sender<()> },
    /// Detach everything, remove pins and managed addresses, and end.
    Shutdown {
        reply: oneshot::Sender<ShutdownReply>,
    },
}

/// Speaks to the core; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(pub(crate) mpsc::Sender<Message>);

/// The core has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent's core has stopped")]
pub struct Stopped;

impl Handle {
    /// The report of this moment.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn status(&self) -> Result<StatusReport, Stopped> {
        self.ask(|reply| Message::Status { reply }).await
    }

    /// Returns when the core answers: it is neither stuck nor gone.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ping(&self) -> Result<(), Stopped> {
        self.ask(|reply| Message::Ping { reply }).await
    }

    /// Applies a configuration, or refuses it and changes nothing.
    ///
    /// # Errors
    /// [`Stopped`]; a refusal is the inner error.
    pub async fn reload(&self, model: Model) -> Result<ReloadReply, Stopped> {
        self.ask(|reply| Message::Reload {
            model: Box::new(model),
            reply,
        })
        .await
    }

    /// Notes that a configuration could not be read.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn config_refused(&self, reason: String) -> Result<(), Stopped> {
        self.0
            .send(Message::ConfigRefused { reason })
            .await
            .map_err(|_| Stopped)
    }

    /// Notes what does not work of a part of the agent, or that all of it works. A core that has ended takes the agent along,
    /// so there is nobody left to be told.
    pub async fn problem(&self, part: &'static str, problem: Option<String>) {
        let told = self.0.send(Message::Problem { part, problem }).await;
        if told.is_err() {
            tracing::trace!(part, "the core has ended and is not told");
        }
    }

    /// Detaches everything and ends the core; the inner error says what could not be removed.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn shutdown(&self) -> Result<ShutdownReply, Stopped> {
        self.ask(|reply| Message::Shutdown { reply }).await
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.send(message(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
