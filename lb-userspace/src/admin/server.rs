//! The server.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    Refused, ReloadRequest, Socket, Version,
    socket::{LOOK_EVERY, bind},
};
use crate::core::Handle;

/// How long the core may take to make a report.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct Api {
    core: Handle,
    reloads: mpsc::Sender<ReloadRequest>,
}

/// Answers on the socket until it is dropped. Reloads are asked for through `reloads`. A socket that somebody removes is
/// made again.
pub async fn serve(mut socket: Socket, core: Handle, reloads: mpsc::Sender<ReloadRequest>) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/version", get(version))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(Api {
            core: core.clone(),
            reloads,
        });
    loop {
        if let Some(listener) = socket.listener.take() {
            // axum's server retries a failed accept by itself and does not end. Those who are connected stay so.
            tokio::select! {
                ended = axum::serve(listener, router.clone()) => {
                    let path = socket.path().display();
                    return tracing::error!(?ended, socket = %path, "the API has ended");
                }
                () = socket.is_lost() => {}
            }
        }
        make_again(&mut socket, &core).await;
    }
}

/// Makes the socket again, however long that takes, and says so.
async fn make_again(socket: &mut Socket, core: &Handle) {
    let path = socket.path().to_owned();
    let mut told = None;
    loop {
        match bind(&path) {
            Ok(made) => {
                tracing::warn!(event = "socket_restored", socket = %path.display(), "the API's socket was removed; it is made again");
                socket.replace_by(made);
                break;
            }
            Err(error) => {
                let problem = format!("the API's socket was removed: {error}");
                if told.as_ref() != Some(&problem) {
                    tracing::error!(event = "socket_lost", "{problem}");
                    core.problem("socket", Some(problem.clone())).await;
                    told = Some(problem);
                }
            }
        }
        sleep(LOOK_EVERY).await;
    }
    if told.is_some() {
        core.problem("socket", None).await;
    }
}

fn refuse(status: StatusCode, errors: Vec<String>) -> Response {
    (status, Json(Refused { errors })).into_response()
}

async fn status(State(api): State<Api>) -> Response {
    match timeout(PATIENCE, api.core.status()).await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(stopped)) => refuse(StatusCode::SERVICE_UNAVAILABLE, vec![stopped.to_string()]),
        Err(_) => {
            let error = format!(
                "the agent's core has not answered for {} s",
                PATIENCE.as_secs()
            );
            refuse(StatusCode::SERVICE_UNAVAILABLE, vec![error])
        }
    }
}

async fn reload(State(api): State<Api>) -> Response {
    let (reply, answer) = oneshot::channel();
    let answer = match api.reloads.send(reply).await {
        Ok(()) => answer.await.ok(),
        Err(_) => None,
    };
    match answer {
        Some(Ok(applied)) => Json(applied).into_response(),
        Some(Err(errors)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, errors),
        None => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            vec!["the agent is shutting down".to_owned()],
        ),
    }
}

async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    })
}

async fn unknown(method: Method, uri: Uri) -> Response {
    let known = "there are GET /v1/status, POST /v1/reload and GET /v1/version";
    refuse(
        StatusCode::NOT_FOUND,
        vec![format!("there is no {method} {}: {known}", uri.path())],
    )
}
