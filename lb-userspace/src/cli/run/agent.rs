//! The running agent as its main loop sees it: reloads, the metrics' listener, the end.

use std::{path::PathBuf, process::ExitCode, time::Duration, time::SystemTime};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{log, service_manager};
use crate::{
    config::{self, Checked},
    core::{Handle, ReloadReply},
    metrics::{self, Listener, Metrics},
    model::Model,
};

/// How long detaching may take before the agent ends without it.
const DETACH_WITHIN: Duration = Duration::from_secs(30);
/// How long the core may be silent before the watchdog is left to bite.
const PULSE_WITHIN: Duration = Duration::from_secs(5);

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

    /// Serves the metrics there, and no longer where they were served.
    pub(super) fn listen(&mut self, listener: Option<Listener>) {
        if let Some(old) = self.listener.take() {
            old.abort();
        }
        self.listener = listener.map(|listener| {
            tracing::info!(address = %listener.address(), "serving metrics");
            tokio::spawn(listener.serve(self.metrics.clone(), self.core.clone()))
        });
    }

    /// Reads the configuration again and applies it, or changes nothing. Either is logged.
    pub(super) async fn reload(&mut self) -> ReloadReply {
        service_manager::reloading();
        tracing::info!(event = "reload", config = %self.config.display(), "reading the configuration again");
        let reply = self.apply().await;
        self.metrics.reloaded(reply.is_ok(), SystemTime::now());
        match &reply {
            Ok(changes) => {
                for change in changes {
                    tracing::info!(event = "config_change", "{change}");
                }
                tracing::info!(
                    event = "reloaded",
                    changes = changes.len(),
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
        let path = self.config.clone();
        let loaded = spawn_blocking(move || config::load(&path))
            .await
            .map_err(|error| vec![error.to_string()])?;
        let Checked { model, warnings } = loaded.map_err(|findings| findings.lines())?;
        log(&warnings);
        let fixed = fixed(&self.model, &model);
        if !fixed.is_empty() {
            return Err(fixed);
        }

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
        let mut changes = match self.core.reload(model.clone()).await {
            Ok(reply) => reply?,
            Err(stopped) => return Err(vec![stopped.to_string()]),
        };
        if moved {
            changes.push(match model.metrics {
                Some(address) => format!("metrics listen on {address}"),
                None => "metrics are off".to_owned(),
            });
            self.listen(listener);
        }
        self.model = model;
        Ok(changes)
    }

    /// Tells the service manager that all is well, if it is.
    pub(super) async fn feed(&self, watchdog: &service_manager::Watchdog) {
        if let Ok(Ok(())) = timeout(PULSE_WITHIN, self.core.ping()).await {
            watchdog.feed();
        } else {
            tracing::error!("the core does not answer; the watchdog is not fed");
        }
    }

    /// Takes everything out of the kernel.
    pub(super) async fn shutdown(mut self, core_task: JoinHandle<()>) -> ExitCode {
        self.listen(None);
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

/// What a running agent can't change about itself, in words with the mend.
fn fixed(old: &Model, new: &Model) -> Vec<String> {
    let mut errors = Vec::new();
    let mut check = |key: &str, old: &str, new: &str| {
        if old != new {
            errors.push(format!(
                "`{key}` can't change from \"{old}\" to \"{new}\" while the agent runs\n   \
                 mend: change it back, or stop this agent and start another"
            ));
        }
    };
    check("instance", &old.instance, &new.instance);
    check(
        "pin_root",
        &old.pin_root.to_string_lossy(),
        &new.pin_root.to_string_lossy(),
    );
    check(
        "socket",
        &old.socket.to_string_lossy(),
        &new.socket.to_string_lossy(),
    );
    errors
}

#[cfg(test)]
mod tests;
