//! The real agent as a child process in the balancer's namespace.
//!
//! Each has a directory of its own with its configuration, log, socket and bpffs, which all go with the value; so a
//! test may kill the agent with -9 and walk away: what it left is taken down by `lb detach`. The whole log is printed when the value is dropped: the test runner
//! shows it for a test that failed and swallows it otherwise.

mod binary;
pub mod config;
mod log;
mod view;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use lb_userspace::status::StatusReport;
use rustix::process::Signal;

use crate::command;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::scratch::Scratch;

pub use binary::path as binary;
pub use config::Config;
pub use log::Event;

pub use crate::poll::SOON;

/// How long a start may take: loading means verifying, and a debug build is slow.
const START: Duration = Duration::from_mins(1);

/// An agent, running or not.
pub struct Agent {
    netns: Netns,
    scratch: Scratch,
    daemon: Option<Daemon>,
    /// Put before the command, such as `setpriv` and its options.
    wrapper: Vec<String>,
    starts: usize,
    quiet: bool,
}

impl Agent {
    /// Makes a place for an agent with this configuration and does not start it.
    ///
    /// # Errors
    /// Where the place cannot be made.
    pub fn prepare(netns: &Netns, config: &Config) -> Result<Self> {
        let scratch = Scratch::new("agent")?;
        scratch.mount_bpffs()?;
        let netns = netns.clone();
        let agent = Self {
            netns,
            scratch,
            daemon: None,
            wrapper: Vec::new(),
            starts: 0,
            quiet: false,
        };
        agent.write(config)?;
        Ok(agent)
    }

    /// Starts an agent and waits until it says that it is ready.
    ///
    /// # Errors
    /// Where it does not, with its log.
    pub fn start(netns: &Netns, config: &Config) -> Result<Self> {
        let mut agent = Self::prepare(netns, config)?;
        agent.launch()?;
        Ok(agent)
    }

    /// The same agent, its command put behind `wrapper`, a command line such as `setpriv --bounding-set ...`.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &str) -> Self {
        self.wrapper = wrapper.split_whitespace().map(str::to_owned).collect();
        self
    }

    /// Lets its log not be printed at the end.
    pub fn be_quiet(&mut self) {
        self.quiet = true;
    }

    /// Starts it (again) and waits until it says that it is ready.
    ///
    /// # Errors
    /// Where it does not, with its log.
    pub fn launch(&mut self) -> Result<()> {
        self.begin()?;
        self.wait_until_ready()
    }

    /// Starts it (again) without waiting.
    ///
    /// # Errors
    /// Where there is no executable.
    pub fn begin(&mut self) -> Result<()> {
        self.starts += 1;
        self.daemon = Some(Daemon::start(self.run_command()?, &self.log_file())?);
        Ok(())
    }

    /// Waits until the running agent says that it is ready.
    ///
    /// # Errors
    /// Where it does not in time or ends, with its log.
    pub fn wait_until_ready(&self) -> Result<()> {
        self.daemon()?
            .wait_until(START, "saying that it is ready", || {
                let events = self.events()?;
                let said = events.iter().any(|event| event.field("event") == "ready");
                ensure!(said, "{} events", events.len());
                Ok(())
            })?;
        // Elsewhere nobody would find what a test leaves of them.
        let pins = self.scratch.pins()?;
        ensure!(!pins.is_empty(), "it is ready and has pinned nothing here");
        Ok(())
    }

    /// Runs `lb run` where it is expected to fail.
    ///
    /// # Errors
    /// Where it still runs when its time is over.
    pub fn run_to_failure(&mut self) -> Result<Failure> {
        self.begin()?;
        let status = self.daemon()?.wait(START)?;
        let said = self.log()?;
        self.daemon = None;
        Ok(Failure { status, said })
    }

    fn run_command(&self) -> Result<Command> {
        let lb = binary()?;
        let mut command = match self.wrapper.split_first() {
            None => self.netns.command(lb),
            Some((program, options)) => {
                let mut command = self.netns.command(program);
                command.args(options).arg(lb);
                command
            }
        };
        command.arg("run").arg("--config").arg(self.config_file());
        command.args(["--log-format", "json"]);
        Ok(command)
    }

    /// Replaces the configuration file and tells nobody.
    ///
    /// # Errors
    /// That of writing.
    pub fn write(&self, config: &Config) -> Result<()> {
        let pin_root = self.scratch.bpffs().display().to_string();
        let socket = self.scratch.file("lb.sock").display().to_string();
        self.write_text(&config.text(&pin_root, &socket))
    }

    /// Replaces the configuration file by any text.
    ///
    /// # Errors
    /// That of writing.
    pub fn write_text(&self, text: &str) -> Result<()> {
        self.scratch.write("lb.toml", text)?;
        Ok(())
    }

    /// The configuration file as it is.
    ///
    /// # Errors
    /// That of reading.
    pub fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(self.config_file())?)
    }

    /// Where the configuration file is.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.scratch.file("lb.toml")
    }

    /// Where the API's socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.scratch.file("lb.sock")
    }

    /// Its process id.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.daemon()?.pid())
    }

    /// Its directory and bpffs.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Where it runs.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Replaces the configuration, sends SIGHUP and waits until the agent says that it is applied or refused.
    ///
    /// # Errors
    /// Where the agent refuses it, or does not answer.
    pub fn reload(&self, config: &Config) -> Result<StatusReport> {
        let begun = SystemTime::now();
        self.write(config)?;
        self.signal(Signal::HUP)?;
        let ends = ["reloaded", "reload_refused"];
        let end = self.wait_for_event(SOON, "the end of the reload", begun, |event| {
            ends.contains(&event.field("event"))
        })?;
        if end.field("event") == "reload_refused" {
            let events = self.events()?;
            let errors = events
                .iter()
                .filter(|event| event.time >= begun && event.field("level") == "ERROR");
            let reasons: Vec<_> = errors.map(Event::message).collect();
            bail!("refused: {}", reasons.join("\n"));
        }
        self.status()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon()?.signal(signal)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon()?.kill()?;
        self.daemon = None;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// Where it does not run, or does not end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = self.daemon()?.wait(SOON)?;
        self.daemon = None;
        Ok(status)
    }

    /// Makes sure that it runs.
    ///
    /// # Errors
    /// Where it has ended, with its log.
    pub fn check_alive(&self) -> Result<()> {
        match self.daemon()?.ended()? {
            None => Ok(()),
            Some(status) => bail!("the agent has ended: {status}\n{}", self.log()?),
        }
    }

    /// `lb` with these arguments in the balancer's namespace.
    ///
    /// # Errors
    /// Where there is no executable.
    pub fn lb(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.netns.command(binary()?);
        command::output(command.args(arguments))
    }

    /// `lb detach`, as for an agent that was killed.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn detach(&self) -> Result<()> {
        let config = self.config_file().display().to_string();
        let output = self.lb(&["detach", "--config", &config])?;
        ensure!(
            output.status.success(),
            "lb detach: {}\n{}",
            output.status,
            command::said(&output)
        );
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.file(&format!("lb.{}.log", self.starts))
    }

    fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("the agent does not run")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The bpffs goes anyway, and the pins with it; `lb detach` has to manage with whatever a test left all the same.
        self.daemon = None;
        let left = self.scratch.pins().is_ok_and(|pins| !pins.is_empty());
        if left && let Err(error) = self.detach() {
            eprintln!("harness: {error:#}");
        }
        for start in (1..=self.starts).filter(|_| !self.quiet) {
            let log = fs::read_to_string(self.scratch.file(&format!("lb.{start}.log")));
            eprintln!("--- agent, start {start} ---\n{}", log.unwrap_or_default());
        }
    }
}

/// An agent that ended where it was expected to.
#[derive(Debug)]
pub struct Failure {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on both outputs.
    pub said: String,
}
