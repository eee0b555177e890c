//! `lb run`: puts the parts of the agent together, and takes them apart again.
//!
//! 1. Signals and logging, then the configuration.
//! 2. What can be refused without touching the kernel: the socket of the API.
//! 3. The core, which loads or adopts the data plane. API and metrics answer meanwhile.
//! 4. Requests and signals until the end is asked for, which may be at any time.

mod agent;
mod endpoint;
mod service_manager;
mod stop;

use std::{io, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use self::{agent::Agent, stop::Stop};
use super::{check::contents, complain, reading};
use crate::{
    admin,
    config::{Checked, Diagnostics, Severity},
    core, health, logging,
    metrics::Metrics,
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
    match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let signals = {
        let _entered = runtime.enter();
        Signals::new()
    };
    if let Err(error) = logging::start(arguments.log_format, &arguments.log_level) {
        complain(&format!("lb: {error}"));
        return Ok(ExitCode::FAILURE);
    }
    let signals = signals.context("signals")?;
    let code = runtime.block_on(agent(arguments, signals));
    // A thread that waits for the kernel or for a file must not keep a process that has nothing left to do.
    runtime.shutdown_background();
    code
}

/// The signals that the agent takes, from the moment that this is made: before anything that takes time, so that a reload asked
/// for early does not end the process, and a stop is kept.
struct Signals {
    stop: Stop,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stop: Stop::new()?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn agent(arguments: &Arguments, mut signals: Signals) -> anyhow::Result<ExitCode> {
    let loaded = tokio::select! {
        loaded = reading::configuration(&arguments.config) => loaded,
        signal = signals.stop.signal() => {
            tracing::info!(signal, "ending, nothing was started");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let Checked { model, warnings } = match loaded {
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
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), instance = model.instance,
        config = %arguments.config.display(), "starting"
    );
    serve(arguments, model, signals).await
}

async fn serve(
    arguments: &Arguments,
    model: crate::model::Model,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let Signals {
        mut stop,
        mut hangup,
    } = signals;
    let socket = admin::bind(&model.socket)?;
    let metrics = Metrics::new().context("metrics")?;
    let (sender, results) = mpsc::channel(1024);
    let checks = health::Checks::new(
        sender,
        health::Metrics::register(metrics.registry()).context("metrics")?,
    );
    let config_path =
        std::path::absolute(&arguments.config).context("the path of the configuration")?;
    let core::Starting {
        handle: core,
        mut started,
        task: mut core_task,
    } = core::start(core::Start {
        model: model.clone(),
        config_path,
        checks,
        results,
    });

    // Both answer from now on, if only that the agent is starting: verifying the program may take long.
    let (reloads, mut requests) = mpsc::channel(8);
    let api = tokio::spawn(admin::serve(socket, core.clone(), reloads));
    let contents = contents(&model);
    let mut agent = Agent::new(
        arguments.config.clone(),
        model,
        core.clone(),
        metrics.clone(),
    );
    agent.listen();

    let started = tokio::select! {
        started = &mut started => Ok(started),
        signal = stop.signal() => Err(signal),
    };
    let ended = match started {
        // The start is still under way, and is told to end.
        Err(signal) => Ok(Some(signal)),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => {
            tracing::error!("the core has ended while it started");
            Ok(None)
        }
        Ok(Ok(Ok(()))) => {
            metrics.reloaded(true, SystemTime::now());
            service_manager::feed(core);
            service_manager::ready(&contents);
            tracing::info!(event = "ready", "ready: {contents}");
            Ok(loop {
                // Whoever asked for a reload may have gone away; it is done all the same.
                let reply = tokio::select! {
                    signal = stop.signal() => break Some(signal),
                    _ = hangup.recv() => None,
                    Some(request) = requests.recv() => Some(request),
                    ended = &mut core_task => {
                        tracing::error!(?ended, "the core has ended; traffic goes on, and a new start adopts it");
                        break None;
                    }
                };
                tokio::select! {
                    applied = agent.reload() => drop(reply.map(|reply| reply.send(applied))),
                    // A reload may wait for a file or for the kernel; a stop waits for neither.
                    signal = stop.signal() => break Some(signal),
                }
            })
        }
    };

    api.abort();
    // The socket's file goes with the task.
    drop(api.await);
    let Some(signal) = ended? else {
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
