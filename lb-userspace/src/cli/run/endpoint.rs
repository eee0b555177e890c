//! The address of the metrics: taken when it is free, and served from then on. Nothing else depends on it.

use std::{net::SocketAddr, time::Duration};

use tokio::time::sleep;

use crate::{
    core::Handle,
    metrics::{self, Listener, Metrics},
};

/// How long after a failure the first attempt comes, and the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The part of the agent, in its report.
const PART: &str = "metrics";

/// Serves the metrics at `address` until it is dropped, as soon as that can be listened on.
pub(super) async fn serve(address: SocketAddr, metrics: Metrics, core: Handle) {
    let mut delay = FIRST_RETRY;
    loop {
        match metrics::bind(address).await {
            Ok(listener) => return serve_at(listener, metrics, core).await,
            Err(error) => {
                if delay == FIRST_RETRY {
                    tracing::error!(
                        event = "metrics_unavailable",
                        "{error}\n   traffic does not depend on it; it is tried again"
                    );
                }
                core.problem(PART, Some(error.to_string())).await;
            }
        }
        sleep(delay).await;
        delay = (delay * 2).min(LAST_RETRY);
    }
}

/// Takes back what was said of an address that is no longer to be served.
pub(super) async fn not_wanted(core: &Handle) {
    core.problem(PART, None).await;
}

/// Serves the metrics at an address that was taken before.
pub(super) async fn serve_at(listener: Listener, metrics: Metrics, core: Handle) {
    tracing::info!(address = %listener.address(), "serving metrics");
    core.problem(PART, None).await;
    listener.serve(metrics, core).await;
}
