//! The HTTP listener: `/metrics`, `/healthz`, `/readyz`.

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, time::timeout};

use super::Metrics;
use crate::{core::Handle, status::StatusReport};

/// How long a question to the core may take before the answer is that it does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the metrics can't listen on {address}: {cause}\n   help: {help}")]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
    help: &'static str,
}

/// A bound listener that answers nobody yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the address, so that a start or a reload can be refused before anything was changed.
///
/// # Errors
/// It is taken, or not an address of this host.
pub async fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Listener { listener, address }),
        Err(cause) => {
            let help = match cause.kind() {
                io::ErrorKind::AddrInUse => {
                    "stop the program that has the port (`ss -ltnp` shows it), or change `listen` in [metrics]"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "change `listen` in [metrics] to an address of this host"
                }
                io::ErrorKind::PermissionDenied => {
                    "change `listen` in [metrics] to a port above 1023"
                }
                _ => "change `listen` in [metrics]",
            };
            Err(BindError {
                address,
                cause,
                help,
            })
        }
    }
}

impl Listener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self, metrics: Metrics, core: Handle) {
        // axum's server retries a failed accept by itself and does not end.
        if let Err(error) = axum::serve(self.listener, router(metrics, core)).await {
            tracing::error!(%error, address = %self.address, "the metrics' listener has ended");
        }
    }
}

/// The three pages.
pub(super) fn router(metrics: Metrics, core: Handle) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state((metrics, core))
}

const MUTE: &str = "the agent's core does not answer\n";

async fn scrape(State((metrics, core)): State<(Metrics, Handle)>) -> Response {
    let Ok(Ok(report)) = timeout(PATIENCE, core.status()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, MUTE).into_response();
    };
    if report.program.is_none() {
        // Zeroes would look like counters that began anew.
        return unready(&report);
    }
    match metrics.exposition(&report) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn alive(State((_, core)): State<(Metrics, Handle)>) -> Response {
    match timeout(PATIENCE, core.ping()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, MUTE).into_response(),
    }
}

async fn ready(State((_, core)): State<(Metrics, Handle)>) -> Response {
    let Ok(Ok(report)) = timeout(PATIENCE, core.status()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, MUTE).into_response();
    };
    if report.agent.ready {
        return "ready\n".into_response();
    }
    unready(&report)
}

/// 503, and why.
fn unready(report: &StatusReport) -> Response {
    let mut text = "not ready\n".to_owned();
    for reason in &report.agent.not_ready {
        text.extend([reason, "\n"]);
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
