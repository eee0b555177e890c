//! Network namespaces as values.
//!
//! A namespace is a named one, so that `ip netns exec` reaches it, but nothing here goes through that command: it
//! would also mount a bare sysfs over `/sys`, and the bpffs below it would be gone. Code and commands enter by
//! `setns(CLONE_NEWNET)` alone, a thread for itself and a child between fork and exec.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::teardown::Undo;
use crate::{command, names, sweep};

/// A network namespace whose loopback is up; removed when the last clone is dropped.
#[derive(Clone)]
pub struct Netns {
    made: Arc<Made>,
}

struct Made {
    name: String,
    handle: OwnedFd,
    _undo: Undo,
}

impl Netns {
    /// Makes an empty namespace; `role` is the readable part of its name.
    ///
    /// # Errors
    /// Where the process is not root, with what to do.
    pub fn new(role: &str) -> Result<Self> {
        sweep::once()?;
        let name = names::unique(role);
        let add = || {
            command::line(&format!("ip netns add {name}")).context(
                "the suites make network namespaces, which needs root: `cargo xtask test`, or sudo",
            )
        };
        let remove = {
            let name = name.clone();
            move || sweep::remove_namespace(&name)
        };
        let (_, undo) = Undo::make(add, |_| Box::new(remove))?;
        let path = Path::new(sweep::NAMESPACES).join(&name);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let made = Made {
            name,
            handle: file.into(),
            _undo: undo,
        };
        let netns = Self {
            made: Arc::new(made),
        };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.made.name
    }

    /// Runs `work` on a thread of its own inside. Sockets that it makes stay in the namespace wherever they are used.
    ///
    /// # Errors
    /// Where the kernel refuses the way in.
    ///
    /// # Panics
    /// As `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = thread::scope(|scope| {
            let inside = scope.spawn(|| enter(&self.made.handle).map(|()| work()));
            inside
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        });
        entered.with_context(|| format!("cannot enter namespace {}", self.name()))
    }

    /// Runs `work` on a thread of its own inside, beside the caller.
    ///
    /// The thread's result is an error where the kernel refuses the way in.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<io::Result<T>> {
        let made = Arc::clone(&self.made);
        thread::spawn(move || enter(&made.handle).map(|()| work()))
    }

    /// A command that will run inside, and will not outlive the thread that starts it.
    ///
    /// It has a process group of its own: Ctrl-C is for the harness, which then ends its children in order.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let made = Arc::clone(&self.made);
        let before_exec = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            enter(&made.handle)
        };
        // SAFETY: between fork and exec the closure makes two system calls and touches no lock and no heap.
        unsafe { command.pre_exec(before_exec) };
        command.process_group(0);
        command
    }

    /// A command given as one line, split at spaces, to be run inside.
    #[must_use]
    pub fn words(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    /// What a command line says when run inside.
    ///
    /// # Errors
    /// As [`command::run`].
    pub fn exec(&self, line: &str) -> Result<String> {
        command::run(&mut self.words(line))
    }

    /// `ip` with these arguments inside.
    ///
    /// # Errors
    /// As [`command::run`].
    pub fn ip(&self, arguments: &str) -> Result<String> {
        command::line(&format!("ip -n {} {arguments}", self.name()))
    }

    /// Sets a parameter below `/proc/sys/net`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// Where it does not exist or refuses the value.
    pub fn sysctl(&self, parameter: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(parameter);
        // The directory shows the namespace of the thread that looks, whatever is mounted where.
        self.run(|| std::fs::write(&path, value))?
            .with_context(|| format!("{value} to {} in {}", path.display(), self.name()))
    }
}

fn enter(handle: &OwnedFd) -> io::Result<()> {
    move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}
