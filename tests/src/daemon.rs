//! A program that keeps running: the agent, a server, a capture. It ends with the value, whatever happens.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::poll;
use crate::teardown::Undo;

/// A running child whose output goes to a file. Killed and waited for when dropped.
pub struct Daemon {
    name: String,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
    _undo: Undo,
}

impl Daemon {
    /// Starts a command, appending both its outputs to `log`.
    ///
    /// Make the command with [`crate::netns::Netns::command`], which also ties its life to the thread that calls this.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let spawn = || {
            let child = command.spawn().with_context(|| {
                format!("cannot start {name} (installed by `cargo xtask setup`)")
            })?;
            Ok(Arc::new(Mutex::new(child)))
        };
        let kill = |child: &Arc<Mutex<Child>>| -> Box<dyn FnOnce() + Send> {
            let (name, child) = (name.clone(), Arc::clone(child));
            Box::new(move || end(&name, &mut held(&child)))
        };
        let (child, undo) = Undo::make(spawn, kill)?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
            _undo: undo,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        held(&self.child).id()
    }

    /// All that it has written.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where it has ended already, with its status and log.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Under the lock nobody else waits for the child, so that its id can't have gone to another process.
        let mut child = held(&self.child);
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended: {status}\n{}", self.name, self.log()?);
        }
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// Where it has ended already.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        held(&self.child).wait()?;
        Ok(())
    }

    /// Its exit status, where it has ended.
    ///
    /// # Errors
    /// Where it was waited for elsewhere.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(held(&self.child).try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it still runs when `within` is over, with its log.
    pub fn wait(&self, within: Duration) -> Result<ExitStatus> {
        let ended = poll::until(within, format!("{} to end", self.name), || {
            self.ended()?.context("it runs")
        });
        ended.with_context(|| self.log().unwrap_or_default())
    }

    /// Waits until `ready` gives a value, and stops waiting when the program ends.
    ///
    /// # Errors
    /// When `within` is over or the program has ended: its log and what was last seen.
    pub fn wait_until<T>(
        &self,
        within: Duration,
        what: &str,
        mut ready: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let outcome = poll::until(within, format!("{}: {what}", self.name), || {
            match self.ended()? {
                Some(status) => Ok(Err(status)),
                None => ready().map(Ok),
            }
        });
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => bail!(
                "{} ended instead of {what}: {status}\n{}",
                self.name,
                self.log()?
            ),
            Err(error) => {
                Err(error).with_context(|| format!("its log:\n{}", self.log().unwrap_or_default()))
            }
        }
    }
}

fn end(name: &str, child: &mut Child) {
    if let Ok(Some(_)) = child.try_wait() {
        return;
    }
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        eprintln!("harness: {name} ({}) does not end: {error}", child.id());
    }
}

fn held(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
