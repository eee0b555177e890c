//! The HTTP listener: `/metrics`, `/healthz`, `/readyz`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use tokio::{net::TcpListener, time::timeout};

use super::{Metrics, shared::Shared};
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
        .with_state(Arc::new(Pages {
            metrics,
            core,
            report: Shared::default(),
            text: Shared::default(),
        }))
}

/// What the pages are made of. Whoever can connect may ask as often as he likes, and health checks wait for the same
/// processor: so those who ask at the same time share one report and one text.
struct Pages {
    metrics: Metrics,
    core: Handle,
    report: Shared<Option<Arc<StatusReport>>>,
    text: Shared<Page>,
}

/// A page, or why there is none.
type Page = Result<Bytes, (StatusCode, Bytes)>;

const MUTE: Bytes = Bytes::from_static(b"the agent's core does not answer\n");

impl Pages {
    /// `None` where the core does not answer.
    async fn report(&self) -> Option<Arc<StatusReport>> {
        let ask = async {
            let report = timeout(PATIENCE, self.core.status()).await;
            report.ok()?.ok().map(Arc::new)
        };
        self.report.get(ask).await
    }

    async fn text(&self) -> Page {
        let report = self.report().await;
        let report = report.ok_or((StatusCode::SERVICE_UNAVAILABLE, MUTE))?;
        if report.program.is_none() {
            // Zeroes would look like counters that began anew.
            return Err(unready(&report));
        }
        let text = self.metrics.exposition(&report);
        text.map(Bytes::from).map_err(|error| {
            let text = format!("{error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text.into())
        })
    }
}

async fn scrape(State(pages): State<Arc<Pages>>) -> Response {
    match pages.text.get(pages.text()).await {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err((status, text)) => plain(status, text),
    }
}

async fn alive(State(pages): State<Arc<Pages>>) -> Response {
    match timeout(PATIENCE, pages.core.ping()).await {
        Ok(Ok(())) => "ok\n".into_response(),
        _ => plain(StatusCode::SERVICE_UNAVAILABLE, MUTE),
    }
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let Some(report) = pages.report().await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, MUTE);
    };
    if report.agent.ready {
        return "ready\n".into_response();
    }
    let (status, text) = unready(&report);
    plain(status, text)
}

fn plain(status: StatusCode, text: Bytes) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// 503, and why.
fn unready(report: &StatusReport) -> (StatusCode, Bytes) {
    let mut text = "not ready\n".to_owned();
    for reason in &report.agent.not_ready {
        text.extend([reason, "\n"]);
    }
    (StatusCode::SERVICE_UNAVAILABLE, text.into())
}
