//! The one task that owns the desired state.
//!
//! Every input is a message to it: results of health checks, links and neighbours, a new configuration, questions.
//! After each it works out what the maps should hold, lets [`crate::plan`] say what must change, and has the
//! [`crate::dataplane`] apply it. It reads no file and serves no socket.

mod attachments;
mod begin;
mod desired;
mod difference;
mod health;
mod host;
mod inputs;
mod known;
pub(crate) mod message;
mod plane;
pub(crate) mod reach;
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
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

pub use message::{Handle, ReloadReply, Stopped};
pub use plane::PlaneLost;

use self::{
    host::LinuxHost,
    inputs::Inputs,
    message::Message,
    task::{Core, Parts},
};
use crate::{
    dataplane::{AttachError, Dataplane, Kernel, OpenError, Place, TableError},
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
        "interface {0}: there is no such interface\n   mend: correct `name` in [[interface]]; `ip link` shows the ones \
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

/// Loads or adopts the data plane and runs the first reconcile; returns when it is done, the program runs on every
/// interface and every backend has been checked once, or a few seconds have passed.
///
/// The task ends after [`Handle::shutdown`] has been answered, or when something failed beyond repair, which is logged.
///
/// # Errors
/// See [`StartError`].
pub async fn start(start: Start) -> Result<(Handle, JoinHandle<()>), StartError> {
    let Start {
        model,
        config_path,
        checks,
        results,
    } = start;
    let started = SystemTime::now();
    let place = Place {
        instance: model.instance.clone(),
        pin_root: model.pin_root.clone(),
    };
    let settings = model.data_plane;
    let opened = spawn_blocking(move || Kernel::open(&place, settings)).await;
    let mut kernel = opened.map_err(|_| PlaneLost)??;
    let adopted = kernel.adopted();
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
    let (handle_in, messages) = mpsc::channel::<Message>(64);
    let inputs = Inputs::new(messages, results, observations, announcements, events);
    let time = timestamp(started);
    let report = AgentReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: time.clone(),
        adopted,
        config: config_path.display().to_string(),
        config_loaded: time,
        ..AgentReport::default()
    };
    let host = LinuxHost::new(neighbours, announcements_in);
    let (checks, kernel) = (Box::new(checks), Box::new(kernel));
    let core = Core::new(Parts {
        model: Arc::new(model),
        checks,
        host,
        plane: kernel,
        report,
    });
    let task = core.begin(inputs).await?;
    Ok((Handle(handle_in), tokio::spawn(task)))
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
