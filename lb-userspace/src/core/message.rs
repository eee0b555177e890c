//! What the core is told and asked, and the handle through which it happens.

use tokio::sync::{mpsc, oneshot};

use crate::{model::Model, status::StatusReport};

/// Lines for people: what a reload changed, or why nothing was changed.
pub type ReloadReply = Result<Vec<String>, Vec<String>>;

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
    /// Make a report.
    Status {
        reply: oneshot::Sender<StatusReport>,
    },
    /// Say that the core is alive.
    Ping { reply: oneshot::Sender<()> },
    /// Detach everything, remove pins and managed addresses, and end.
    Shutdown {
        reply: oneshot::Sender<Result<(), Vec<String>>>,
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

    /// Detaches everything and ends the core; the inner error says what could not be removed.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn shutdown(&self) -> Result<Result<(), Vec<String>>, Stopped> {
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
