//! The client: one request a connection.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::{Applied, Refused, Version, socket::listener};
use crate::status::StatusReport;

/// For a question. The server gives up before.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// For a reload, which may load and verify a program.
const RELOAD_WITHIN: Duration = Duration::from_mins(1);
/// More than a report of 4,096 services takes.
const MAX_ANSWER: usize = 256 << 20;

/// Speaks to the agent at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {}: {cause}\n   help: start one (`systemctl start lb`, or `lb run --config FILE`){others}",
        .socket.display()
    )]
    Absent {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// Where else agents may be, in words; empty where none.
        others: String,
    },
    /// Somebody listens, and this user may not ask.
    #[error(
        "the socket {} may not be opened: {cause}\n   help: run as root, or as a member of the socket's group",
        .socket.display()
    )]
    Denied {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Somebody listens and does not answer in time.
    #[error(
        "the agent at {} has not answered for {seconds} s\n   help: look at its log (`journalctl -u lb`); traffic does \
         not depend on it", .socket.display()
    )]
    Mute {
        /// The socket.
        socket: PathBuf,
        /// How long it had.
        seconds: u64,
    },
    /// The answer makes no sense, or the connection broke.
    #[error(
        "what answers at {} is not an agent of this version: {cause}\n   help: compare `lb --version` with the running \
         agent's", .socket.display()
    )]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The agent says no.
    #[error("{}", .0.errors.join("\n"))]
    Refused(Refused),
}

impl Client {
    /// Of the agent at `socket`.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// What there is to see.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<StatusReport, ClientError> {
        self.ask(Method::GET, "/v1/status", ANSWER_WITHIN).await
    }

    /// Has the agent read its file again, and says what that changed.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] where nothing was changed.
    pub async fn reload(&self) -> Result<Applied, ClientError> {
        self.ask(Method::POST, "/v1/reload", RELOAD_WITHIN).await
    }

    /// Who answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.ask(Method::GET, "/v1/version", ANSWER_WITHIN).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        within: Duration,
    ) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|cause| self.unreachable(cause))?;
        let (status, body) = match timeout(within, exchange(stream, method, path)).await {
            Ok(answer) => answer.map_err(|cause| self.garbled(cause))?,
            Err(_) => {
                return Err(ClientError::Mute {
                    socket: self.socket.clone(),
                    seconds: within.as_secs(),
                });
            }
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|cause| self.garbled(cause.into()));
        }
        Err(ClientError::Refused(
            serde_json::from_slice(&body).map_err(|cause| self.garbled(cause.into()))?,
        ))
    }

    fn unreachable(&self, cause: io::Error) -> ClientError {
        let socket = self.socket.clone();
        if cause.kind() == io::ErrorKind::PermissionDenied {
            return ClientError::Denied { socket, cause };
        }
        let others = match neighbours(&self.socket) {
            names if names.is_empty() => String::new(),
            names => format!(
                "; there are sockets of {}: use --instance",
                names.join(", ")
            ),
        };
        ClientError::Absent {
            socket,
            cause,
            others,
        }
    }

    fn garbled(&self, cause: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Garbled {
            socket: self.socket.clone(),
            cause,
        }
    }
}

/// Names of instances that listen at a socket in the same directory.
fn neighbours(socket: &Path) -> Vec<String> {
    let entries = socket
        .parent()
        .and_then(|directory| directory.read_dir().ok())
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| path != socket)
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".sock")?;
            // What a killed agent left is no instance.
            listener(&path).map(|_| name.to_owned())
        })
        .collect();
    names.sort();
    names
}

type Exchanged = Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>>;

async fn exchange(stream: UnixStream, method: Method, path: &str) -> Exchanged {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "lb")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok((
            status,
            Limited::new(answer.into_body(), MAX_ANSWER)
                .collect()
                .await?
                .to_bytes(),
        ))
    };
    // The connection moves bytes only while it is polled; its end is part of the answer's.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => { ended?; answer.await }
    }
}
