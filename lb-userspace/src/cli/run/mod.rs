//! `lb run`: puts the parts of the agent together, and takes them apart again.
//!
//! 1. Logging, then the configuration.
//! 2. What can be refused without touching the kernel: the socket of the API and the port of the metrics.
//! 3. The core, which loads or adopts the data plane and returns after the first reconcile.
//! 4. Requests and signals until the end is asked for.

mod agent;
mod service_manager;

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::agent::Agent;
use super::{check::contents, complain};
use crate::{
    admin,
    config::{self, Checked, Diagnostics, Severity},
    core, health, logging,
    metrics::{self, Metrics},
};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a bpffs (`mount -t bpf bpf /sys/fs/bpf`).

The log goes to the standard error. With --log-format json each line is an object with timestamp (RFC 3339, UTC, \
microseconds), level, message, and the event's fields; a backend that goes up or down has event \"backend_state\" and \
backend, pool, state and reason.

Under systemd the agent says when it is ready, reloading and stopping, and feeds the watchdog as long as its core \
answers.

SIGHUP reads the configuration again, SIGTERM and SIGINT detach and end. SIGKILL ends the agent alone: traffic goes on, \
and the next start adopts what it finds, connections included; `lb detach` removes it instead.")]
pub(super) struct Arguments {
    /// The configuration; `lb check` says what it thinks of one
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What a line of the log looks like
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logging::Format,
    /// What the agent logs: error, warn, info, debug, trace, or directives such as `info,hyper=debug`. What the program
    /// logs is the configuration's to say and is shown at any level but off
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

/// Runs the agent to its end.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if let Err(error) = logging::start(arguments.log_format, &arguments.log_level) {
        complain(&format!("lb: {error}"));
        return ExitCode::FAILURE;
    }
    match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Checked { model, warnings } = match config::load(&arguments.config) {
        Ok(checked) => checked,
        Err(findings) => {
            log(&findings);
            anyhow::bail!(
                "{} can't be used: nothing was started",
                arguments.config.display()
            );
        }
    };
    log(&warnings);
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let agent = async {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), instance = model.instance,
            config = %arguments.config.display(), "starting"
        );
        serve(arguments, model).await
    };
    let code = runtime.block_on(agent);
    // A thread that waits for the kernel must not keep a process that has nothing left to do.
    runtime.shutdown_background();
    code
}

async fn serve(arguments: &Arguments, model: crate::model::Model) -> anyhow::Result<ExitCode> {
    // Before anything is attached, so that a signal that comes early is kept and detaches it.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;

    let socket = admin::bind(&model.socket)?;
    let listener = match model.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };

    let metrics = Metrics::new().context("metrics")?;
    let (sender, results) = mpsc::channel(1024);
    let checks = health::Checks::new(
        sender,
        health::Metrics::register(metrics.registry()).context("metrics")?,
    );
    let config_path =
        std::path::absolute(&arguments.config).context("the path of the configuration")?;
    let (core, mut core_task) = core::start(core::Start {
        model: model.clone(),
        config_path,
        checks,
        results,
    })
    .await?;
    metrics.reloaded(true, SystemTime::now());

    let (reloads, mut requests) = mpsc::channel(8);
    let api = tokio::spawn(admin::serve(socket, core.clone(), reloads));
    let contents = contents(&model);
    let mut agent = Agent::new(arguments.config.clone(), model, core, metrics);
    agent.listen(listener);

    let mut watchdog = service_manager::Watchdog::start();
    service_manager::ready(&contents);
    tracing::info!(event = "ready", "ready: {contents}");

    let stopped = loop {
        tokio::select! {
            _ = terminate.recv() => break Some("SIGTERM"),
            _ = interrupt.recv() => break Some("SIGINT"),
            _ = hangup.recv() => drop(agent.reload().await),
            Some(request) = requests.recv() => {
                // Whoever asked may have gone away; the reload is done all the same.
                drop(request.send(agent.reload().await));
            }
            () = watchdog.tick() => agent.feed(&watchdog).await,
            ended = &mut core_task => {
                tracing::error!(?ended, "the core has ended; traffic goes on, and a new start adopts it");
                break None;
            }
        }
    };

    api.abort();
    // The socket's file goes with the task.
    drop(api.await);
    let Some(signal) = stopped else {
        return Ok(ExitCode::FAILURE);
    };
    tracing::info!(signal, "detaching");
    service_manager::stopping();
    Ok(agent.shutdown(core_task).await)
}

/// Logs every finding, many of a kind as one.
fn log(findings: &Diagnostics) {
    for finding in findings.grouped() {
        match finding.severity {
            Severity::Error => tracing::error!("{finding}"),
            Severity::Warning => tracing::warn!("{finding}"),
        }
    }
}

/// A check has a descriptor while it runs, and the usual soft limit of 1,024 is that of programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}
