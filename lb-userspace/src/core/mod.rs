//! The one task that owns the desired state.
//!
//! Every input is a message to it: results of health checks, links and neighbours, a new configuration, questions.
//! After each it works out what the maps should hold, lets [`crate::plan`] say what must change, and has the
//! [`crate::dataplane`] apply it. It reads no file and serves no socket.

mod attachments;
mod begin;
mod desired;
mod difference;
mod early;
mod health;
mod host;
mod inputs;
mod known;
mod losses;
pub(crate) mod message;
mod plane;
mod reconcile;
mod redirects;
mod reload;
mod task;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
};

pub use message::{Applied, Handle, ReloadReply, Stopped};
pub use plane::PlaneLost;

use self::{
    early::Early,
    host::LinuxHost,
    inputs::Inputs,
    message::{Message, ShutdownReply},
    task::{Core, Parts},
};
use crate::{
    addresses,
    dataplane::{AttachError, Dataplane, OpenError, Place, Prepared, TableError, Undo},
    health::{CheckResult, Checks},
    model::Model,
    neighbours::{self, Neighbours, Watch},
    observe::timestamp,
    status::AgentReport,
};

/// What a start needs.
#[derive(Debug)]
pub struct Start {
    /// The checked configuration.
    pub model: Model,
    /// Where it was read from, for the report.
    pub config_path: PathBuf,
    /// The health checks; the core tells them which pools to check. None runs before the core is ready for results.
    pub checks: Checks,
    /// Where the checks send their results.
    pub results: mpsc::Receiver<CheckResult>,
}

/// Why an agent can't start. What was in force before stays in force, and nothing new is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program, its maps or their pins.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An interface of the configuration does not exist.
    #[error(
        "interface {0}: there is no such interface\n   help: correct `name` in [[interface]]; `ip link` shows the ones \
         there are"
    )]
    NoInterface(String),
    /// The program can't run on an interface.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A map can't be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Links, routes, neighbours or addresses.
    #[error(transparent)]
    Netlink(#[from] neighbours::Error),
    /// A call into the data plane panicked.
    #[error(transparent)]
    Lost(#[from] PlaneLost),
}

/// A core that starts.
#[derive(Debug)]
pub struct Starting {
    /// Speaks to it from now on. Until it has started it says so, and takes no reload.
    pub handle: Handle,
    /// Whether the first reconcile is done, the program runs on every interface, and every backend has been checked once or
    /// a few seconds have passed. Closed where the agent was told to end before.
    pub started: oneshot::Receiver<Result<(), StartError>>,
    /// Ends after [`Handle::shutdown`] has been answered, when the start has failed, or when something failed beyond
    /// repair, which is logged.
    pub task: JoinHandle<()>,
}

/// Loads or adopts the data plane and runs the first reconcile, in a task of its own.
#[must_use]
pub fn start(start: Start) -> Starting {
    let (handle, messages) = mpsc::channel(64);
    let (started_in, started) = oneshot::channel();
    let task = tokio::spawn(async move {
        match launch(start, messages).await {
            Ok(Some((core, inputs))) => {
                // Whoever waits may have turned to ending the agent.
                drop(started_in.send(Ok(())));
                core.run(inputs).await;
            }
            Ok(None) => {}
            Err(error) => drop(started_in.send(Err(error))),
        }
    });
    Starting {
        handle: Handle(handle),
        started,
        task,
    }
}

/// Makes a core; `None` where the agent was told to end meanwhile, and has left nothing.
async fn launch(
    start: Start,
    mut messages: mpsc::Receiver<Message>,
) -> Result<Option<(Core<LinuxHost>, Inputs)>, StartError> {
    let Start {
        model,
        config_path,
        checks,
        results,
    } = start;
    let time = timestamp(SystemTime::now());
    let mut early = Early {
        instance: model.instance.clone(),
        report: AgentReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: time.clone(),
            config: config_path.display().to_string(),
            config_loaded: time,
            ..AgentReport::default()
        },
    };
    let place = Place {
        instance: model.instance.clone(),
        pin_root: model.pin_root.clone(),
    };
    let settings = model.data_plane;
    let prepared = spawn_blocking(move || Prepared::new(&place, settings)).await;
    let prepared = prepared.map_err(|_| PlaneLost)??;
    let undo = prepared.undo();
    let loading = spawn_blocking(move || prepared.load());
    let mut kernel = match early.attend(&mut messages, loading).await {
        Ok(opened) => opened.map_err(|_| PlaneLost)??,
        Err(shutdown) => {
            drop(shutdown.send(give_up(undo, &model).await));
            return Ok(None);
        }
    };
    let adopted = kernel.adopted();
    early.report.adopted = adopted;
    let events = match kernel.events() {
        Ok(events) => events,
        Err(cause) => {
            abandon(Box::new(kernel), adopted).await;
            let (map, action) = ("EVENTS", "read");
            return Err(TableError { map, action, cause }.into());
        }
    };

    let (observations_in, observations) = mpsc::channel(1);
    let (announcements_in, announcements) = mpsc::channel(256);
    let watched = Neighbours::start(Watch::default(), Duration::ZERO, observations_in).await;
    let (neighbours, _) = match watched {
        Ok(watched) => watched,
        Err(error) => {
            abandon(Box::new(kernel), adopted).await;
            return Err(error.into());
        }
    };
    let mut inputs = Inputs::new(results, observations, announcements, events);
    let host = LinuxHost::new(neighbours, announcements_in);
    let (checks, kernel) = (Box::new(checks), Box::new(kernel));
    let model = Arc::new(model);
    let core = Core::new(Parts {
        model: Arc::clone(&model),
        checks,
        host,
        plane: kernel,
        report: early.report.clone(),
    });
    let hurry = Arc::clone(&core.hurry);
    let (begun, shutdown) = {
        let mut beginning = pin!(core.begin(&mut inputs));
        match early.attend(&mut messages, beginning.as_mut()).await {
            Ok(begun) => (begun, None),
            Err(shutdown) => {
                hurry.notify_one();
                (beginning.await, Some(shutdown))
            }
        }
    };
    let Some(shutdown) = shutdown else {
        let mut core = begun?;
        early.hand_over(&mut core.report);
        return Ok(Some((core, inputs.with_messages(messages))));
    };
    let left = match begun {
        Ok(mut core) => match core.take_down().await {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        },
        // Of what was adopted, all is still there.
        Err(_) => give_up(undo, &model).await,
    };
    drop(shutdown.send(left));
    Ok(None)
}

/// Takes down what there is, whatever a start has come to.
async fn give_up(undo: Undo, model: &Model) -> ShutdownReply {
    let interfaces: Vec<_> = model
        .interfaces
        .iter()
        .map(|interface| interface.name.clone())
        .collect();
    let mut left = Vec::new();
    if model.manage_addresses
        && let Err(error) = addresses::remove(&interfaces).await
    {
        left.push(error.to_string());
    }
    match spawn_blocking(move || undo.remove()).await {
        Ok(Ok(())) => {}
        Ok(Err(problems)) => left.extend(problems),
        Err(_) => left.push(PlaneLost.to_string()),
    }
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// Takes a data plane down that a failed start has made.
async fn abandon(mut plane: Box<dyn Dataplane>, adopted: bool) {
    if adopted {
        return;
    }
    let removed = spawn_blocking(move || plane.remove()).await;
    if let Ok(Err(left)) = removed {
        tracing::warn!(
            "after a failed start something is left: {}",
            left.join("; ")
        );
    }
}
