//! The agent's API: HTTP and JSON under `/v1` over a Unix socket. The server, and the client of the command line.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | 200, [`crate::status::StatusReport`] |
//! | `POST /v1/reload` | 200, [`Applied`]; 422, [`Refused`]: nothing was changed |
//! | `GET /v1/version` | 200, [`Version`] |
//!
//! Whatever goes wrong is answered by [`Refused`]. Who may open the socket (mode 0660) may do all of it.

mod client;
mod server;
mod socket;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use self::{
    client::{Client, ClientError},
    server::serve,
    socket::{Socket, SocketError, bind},
};
pub use crate::core::Applied;
use crate::core::ReloadReply;

/// A request to read the configuration file again; whoever runs the agent answers it.
pub type ReloadRequest = oneshot::Sender<ReloadReply>;

/// Why a request was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For people, each with its help; may have several lines.
    pub errors: Vec<String>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of the agent.
    pub version: String,
    /// Its process.
    pub pid: u32,
}
