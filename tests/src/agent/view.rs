//! What an agent shows of itself: its status, its metrics, its log.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use lb_userspace::status::{BackendReport, StatusReport};

use super::{Agent, Event, SOON, config};
use crate::http::{Answer, Client};
use crate::{command, poll};

impl Agent {
    /// What `lb status --json` says.
    ///
    /// # Errors
    /// Where it fails or its report is no report.
    pub fn status(&self) -> Result<StatusReport> {
        let socket = self.socket().display().to_string();
        let output = poll::until(SOON, "a status", || {
            let output = self.lb(&["status", "--socket", &socket, "--json"])?;
            // A report counts the flow table, for which the agent has 5 s: too little for a debug build that gets no CPU.
            let said = command::said(&output);
            ensure!(!said.contains("core has not answered"), "{said}");
            anyhow::Ok(output)
        })?;
        ensure!(
            output.status.success(),
            "lb status: {}\n{}",
            output.status,
            command::said(&output)
        );
        serde_json::from_slice(&output.stdout).with_context(|| command::said(&output))
    }

    /// A backend of a service as the status shows it.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn backend(&self, service: &str, backend: &str) -> Result<BackendReport> {
        let status = self.status()?;
        let services = status.services.iter().filter(|row| row.name == service);
        let found = services
            .flat_map(|row| &row.backends)
            .find(|row| row.name == backend);
        found
            .cloned()
            .with_context(|| format!("no {backend} in {service}: {status:#?}"))
    }

    /// Waits until the status shows a backend of a service in this state (`up`, `down`) and as much of it in rotation.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for_state(
        &self,
        service: &str,
        backend: &str,
        state: &str,
    ) -> Result<BackendReport> {
        poll::until(SOON, format!("{backend} to be {state}"), || {
            let row = self.backend(service, backend)?;
            let in_rotation = state != "down";
            ensure!(
                row.state == state && row.in_rotation == in_rotation,
                "{row:?}"
            );
            Ok(row)
        })
    }

    /// A page of the metrics' listener.
    ///
    /// # Errors
    /// Where there is no answer.
    pub fn http(&self, path: &str) -> Result<Answer> {
        let listener: SocketAddr = config::METRICS.parse()?;
        Client::new(&self.netns, listener).get(path)
    }

    /// All that it has written since its last start.
    ///
    /// # Errors
    /// Where it was never started.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.log_file())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What it has logged since its last start.
    ///
    /// # Errors
    /// Where it was never started.
    pub fn events(&self) -> Result<Vec<Event>> {
        Ok(Event::parse_all(&self.log()?))
    }

    /// Waits for an event at or after `from` that `is` the one, and gives it.
    ///
    /// # Errors
    /// When it takes longer than `within`.
    pub fn wait_for_event(
        &self,
        within: Duration,
        what: &str,
        from: SystemTime,
        is: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        poll::until(within, format!("the event: {what}"), || {
            let found = self
                .events()?
                .into_iter()
                .find(|event| event.time >= from && is(event));
            found.context("it is not in the log")
        })
    }
}
