//! The running agent as its main loop sees it: reloads, the metrics' listener, the end.

use std::{path::PathBuf, process::ExitCode, time::Duration, time::SystemTime};

use tokio::{task::JoinHandle, time::timeout};

use super::{super::reading, endpoint, log, service_manager};
use crate::{
    config::Checked,
    core::{Applied, Handle, ReloadReply},
    metrics::{self, Metrics},
    model::Model,
};

/// How long detaching may take before the agent ends without it.
const DETACH_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Agent {
    /// As it was given, so that findings name the file as the operator does.
    config: PathBuf,
    /// In force.
    model: Model,
    core: Handle,
    metrics: Metrics,
    listener: Option<JoinHandle<()>>,
}

impl Agent {
    pub(super) fn new(config: PathBuf, model: Model, core: Handle, metrics: Metrics) -> Self {
        Self {
            config,
            model,
            core,
            metrics,
            listener: None,
        }
    }

    /// Serves the metrics where the configuration says, and no longer where they were served.
    pub(super) fn listen(&mut self) {
        self.move_listener(self.model.metrics.map(|address| {
            tokio::spawn(endpoint::serve(
                address,
                self.metrics.clone(),
                self.core.clone(),
            ))
        }));
    }

    fn move_listener(&mut self, listener: Option<JoinHandle<()>>) {
        if let Some(old) = std::mem::replace(&mut self.listener, listener) {
            old.abort();
        }
    }

    /// Reads the configuration again and applies it, or changes nothing. Either is logged.
    pub(super) async fn reload(&mut self) -> ReloadReply {
        service_manager::reloading();
        tracing::info!(event = "reload", config = %self.config.display(), "reading the configuration again");
        let reply = self.apply().await;
        self.metrics.reloaded(reply.is_ok(), SystemTime::now());
        match &reply {
            Ok(Applied { applied, .. }) => {
                for change in applied {
                    tracing::info!(event = "config_change", "{change}");
                }
                tracing::info!(
                    event = "reloaded",
                    changes = applied.len(),
                    "the configuration is applied"
                );
            }
            Err(reasons) => {
                for reason in reasons {
                    tracing::error!("{reason}");
                }
                tracing::error!(
                    event = "reload_refused",
                    errors = reasons.len(),
                    "the configuration is refused; the running one stays in force"
                );
                if let Err(stopped) = self.core.config_refused(reasons.join("\n")).await {
                    tracing::error!("{stopped}");
                }
            }
        }
        service_manager::ready(&super::contents(&self.model));
        reply
    }

    async fn apply(&mut self) -> ReloadReply {
        let loaded = reading::configuration(&self.config).await;
        let Checked { model, warnings } = loaded.map_err(|findings| findings.lines())?;
        log(&warnings);

        // Taken before anything is applied, and given back by being dropped where the core refuses.
        let moved = self.model.metrics != model.metrics;
        let listener = match model.metrics {
            Some(address) if moved => Some(
                metrics::bind(address)
                    .await
                    .map_err(|error| vec![error.to_string()])?,
            ),
            _ => None,
        };
        let mut done = match self.core.reload(model.clone()).await {
            Ok(reply) => reply?,
            Err(stopped) => return Err(vec![stopped.to_string()]),
        };
        done.warnings.splice(..0, warnings.lines());
        if moved {
            done.applied.push(match model.metrics {
                Some(address) => format!("metrics listen on {address}"),
                None => "metrics are off".to_owned(),
            });
            let (metrics, core) = (self.metrics.clone(), self.core.clone());
            self.move_listener(
                listener.map(|listener| tokio::spawn(endpoint::serve_at(listener, metrics, core))),
            );
            if model.metrics.is_none() {
                // Whatever the earlier address lacked.
                endpoint::not_wanted(&self.core).await;
            }
        }
        self.model = model;
        Ok(done)
    }

    /// Takes everything out of the kernel.
    pub(super) async fn shutdown(mut self, core_task: JoinHandle<()>) -> ExitCode {
        self.move_listener(None);
        let left = match timeout(DETACH_WITHIN, self.core.shutdown()).await {
            Ok(Ok(Ok(()))) => Vec::new(),
            Ok(Ok(Err(left))) => left,
            Ok(Err(stopped)) => vec![stopped.to_string()],
            Err(_) => vec![format!(
                "detaching has taken more than {} s",
                DETACH_WITHIN.as_secs()
            )],
        };
        if left.is_empty() {
            // It has answered, so nothing is left that could fail.
            drop(core_task.await);
            tracing::info!(event = "detached", "detached, ending");
            return ExitCode::SUCCESS;
        }
        for reason in left {
            tracing::error!(event = "detach_failed", "{reason}");
        }
        tracing::error!(
            instance = self.model.instance,
            "not everything was removed; `lb detach` tries again"
        );
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests;
