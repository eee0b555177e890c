//! The agent in a guest.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_userspace::status::StatusReport;

use super::machine::Machine;
use crate::agent::Config;

/// Where it keeps its pins and its socket, as on any host.
const PIN_ROOT: &str = "/sys/fs/bpf";
const SOCKET: &str = "/run/lb.sock";
const CONFIG: &str = "/etc/lb.toml";
const LOG: &str = "/tmp/lb.log";
/// Its process id, and its exit status once it has ended.
const PID: &str = "/tmp/lb.pid";
const EXIT: &str = "/tmp/lb.exit";
/// How long a start may take, most of which is the verifier's.
const START: Duration = Duration::from_mins(10);
/// How long anything else may take.
const SOON: Duration = Duration::from_mins(1);

/// An agent in a guest, running or not.
pub(super) struct Guest<'a> {
    machine: &'a Machine,
}

impl<'a> Guest<'a> {
    /// A place for one.
    #[must_use]
    pub(super) fn new(machine: &'a Machine) -> Self {
        Self { machine }
    }

    /// Starts an agent and waits until it is ready.
    ///
    /// # Errors
    /// Where it ends or is not ready in time, with its log.
    pub(super) fn start(&self, config: &Config) -> Result<()> {
        self.write(config)?;
        self.launch()
    }

    /// Starts it again, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Guest::start`].
    pub(super) fn launch(&self) -> Result<()> {
        self.begin()?;
        // Not by its status: that waits for the agent while it loads.
        let ready = format!("grep -q event=.ready {LOG}");
        self.wait_for(&format!("test -e {EXIT} || {ready}"), START)?;
        self.machine
            .run(&ready)
            .map(drop)
            .with_context(|| self.log())
    }

    /// Runs an agent that is expected to refuse this configuration, and gives what it said.
    ///
    /// # Errors
    /// Where it does not end, or ends well.
    pub(super) fn refusal(&self, config: &Config) -> Result<String> {
        self.write(config)?;
        self.begin()?;
        match self.exit_status(START)? {
            0 => bail!("it ended with 0:\n{}", self.log()),
            _ => Ok(self.log()),
        }
    }

    /// Replaces its configuration, and waits until it is in force.
    ///
    /// # Errors
    /// Where the agent refuses it.
    pub(super) fn reload(&self, config: &Config) -> Result<()> {
        self.write(config)?;
        self.machine
            .run_for(&format!("lb reload --socket {SOCKET}"), SOON)?;
        Ok(())
    }

    /// What `lb status --json` says.
    ///
    /// # Errors
    /// Where it fails.
    pub(super) fn status(&self) -> Result<StatusReport> {
        let said = self
            .machine
            .run(&format!("lb status --socket {SOCKET} --json"))?;
        serde_json::from_str(&said).context(said)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// Where it does not run.
    pub(super) fn kill(&self) -> Result<()> {
        self.signal("KILL")?;
        self.exit_status(SOON).map(drop)
    }

    /// SIGTERM; its exit status.
    ///
    /// # Errors
    /// Where it does not run, or does not end.
    pub(super) fn terminate(&self) -> Result<u32> {
        self.signal("TERM")?;
        self.exit_status(SOON)
    }

    /// Takes everything out of the kernel, whatever an earlier check has left.
    ///
    /// # Errors
    /// Where something stays.
    pub(super) fn clear(&self) -> Result<()> {
        let (ended, _) = self
            .machine
            .outcome(&format!("test -e {EXIT} || ! test -e {PID}"), SOON)?;
        if ended != 0 {
            self.kill()?;
        }
        let detach = format!("test ! -e {PIN_ROOT}/lb || lb detach --config {CONFIG}");
        self.machine.run_for(&detach, SOON).map(drop)
    }

    /// The interfaces that have an XDP program, as `ip` shows them.
    ///
    /// # Errors
    /// Where the guest does not answer.
    pub(super) fn attached(&self) -> Result<Vec<String>> {
        let said = self.machine.run("/bin/ip -details -json link show")?;
        let links: serde_json::Value = serde_json::from_str(&said).context(said)?;
        let links = links.as_array().cloned().unwrap_or_default();
        let with = links.iter().filter(|link| link["xdp"]["prog"].is_object());
        let names = with.filter_map(|link| link["ifname"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// What is pinned.
    ///
    /// # Errors
    /// Where the guest does not answer.
    pub(super) fn pins(&self) -> Result<String> {
        self.machine.run(&format!("find {PIN_ROOT} -path '*/lb*'"))
    }

    /// The end of its log.
    #[must_use]
    pub(super) fn log(&self) -> String {
        let said = self.machine.run(&format!("tail -n 25 {LOG}"));
        said.unwrap_or_else(|error| format!("{error:#}"))
    }

    fn begin(&self) -> Result<()> {
        let run = format!("lb run --config {CONFIG} >> {LOG} 2>&1");
        self.machine.run(&format!(
            "rm -f {LOG} {EXIT}; (({run} & echo $! > {PID}; wait $!; echo $? > {EXIT}) >/dev/null 2>&1 &)"
        ))?;
        Ok(())
    }

    /// Waits for its end.
    fn exit_status(&self, within: Duration) -> Result<u32> {
        self.wait_for(&format!("test -e {EXIT}"), within)?;
        let said = self.machine.run(&format!("cat {EXIT}"))?;
        said.trim().parse().context(said)
    }

    /// Waits in the guest, which has better things to do than to answer one question after the other.
    fn wait_for(&self, condition: &str, within: Duration) -> Result<()> {
        let seconds = within.as_secs();
        let wait = format!("timeout {seconds} sh -c 'until {condition}; do sleep 0.5; done'");
        let waited = self.machine.run_for(&wait, within * 2);
        waited.map(drop).with_context(|| self.log())
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.machine.run(&format!("kill -{signal} $(cat {PID})"))?;
        Ok(())
    }

    fn write(&self, config: &Config) -> Result<()> {
        self.machine.write(CONFIG, &config.text(PIN_ROOT, SOCKET))
    }
}
