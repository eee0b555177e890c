//! What a test makes outside of its own process is undone: at the end of its scope, on a panic, on Ctrl-C and SIGTERM.
//!
//! Everything with a life of its own (a namespace, a mount, a directory, a child) holds an [`Undo`]. Dropping it runs
//! it. The first `Undo` also starts a thread that waits for signals; on one it runs all that are left, newest first,
//! and ends the process with 128 + signal, as a shell would report it; a program that waits for just that
//! ([`until_signal`]) goes on instead and ends in its own way. What a `kill -9` of the harness leaves is the matter of
//! the sweep that the next run starts with.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, Once, PoisonError, RwLock};
use std::thread;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

type Action = Box<dyn FnOnce() + Send>;

/// An action to be run once, when this value is dropped or the process is told to end.
#[must_use = "dropped at once it undoes at once"]
pub struct Undo {
    number: u64,
}

struct Registry {
    next: u64,
    actions: BTreeMap<u64, Action>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    next: 0,
    actions: BTreeMap::new(),
});
static WATCH: Once = Once::new();
/// Held for writing from a signal on: nothing is made any more, and nobody else undoes.
static CLOSING: RwLock<()> = RwLock::new(());
/// Who is to be told of a signal instead of being ended.
static WAITING: Mutex<Option<SyncSender<()>>> = Mutex::new(None);

impl Undo {
    /// Makes something and registers what undoes it, as one step: a signal comes before it or after it.
    ///
    /// `make` must not make or drop another `Undo`.
    ///
    /// # Errors
    /// That of `make`; then there is nothing to undo.
    pub fn make<T>(
        make: impl FnOnce() -> Result<T>,
        undo: impl FnOnce(&T) -> Box<dyn FnOnce() + Send>,
    ) -> Result<(T, Self)> {
        WATCH.call_once(watch_signals);
        let _open = CLOSING.read().unwrap_or_else(PoisonError::into_inner);
        let thing = make()?;
        let registered = Self::register(undo(&thing));
        Ok((thing, registered))
    }

    fn register(action: Action) -> Self {
        with_registry(|registry| {
            let number = registry.next;
            registry.next += 1;
            registry.actions.insert(number, action);
            Self { number }
        })
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // Once a signal has come, all is undone by its thread, and this one waits for the end of the process: going on
        // could end it before its time.
        let _open = CLOSING.read().unwrap_or_else(PoisonError::into_inner);
        let action = with_registry(|registry| registry.actions.remove(&self.number));
        if let Some(action) = action {
            action();
        }
    }
}

/// Waits for Ctrl-C, SIGTERM or SIGHUP; it is then the caller's to drop what it holds and to end.
pub fn until_signal() {
    WATCH.call_once(watch_signals);
    let (tell, told) = mpsc::sync_channel(1);
    *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
    // An error would mean that nobody can tell any more, which ends the waiting too.
    told.recv().unwrap_or_default();
}

/// Names of the namespaces and directories of this process that are there.
///
/// # Errors
/// Where they cannot be listed.
pub fn left_of_this_process() -> Result<Vec<String>> {
    crate::sweep::of_this_process()
}

/// Runs every action that is left, the newest first.
fn undo_all() {
    while let Some((_, action)) = with_registry(|registry| registry.actions.pop_last()) {
        action();
    }
}

fn watch_signals() {
    let mut signals = match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!(
                "harness: cannot watch signals, Ctrl-C will leave namespaces behind: {error}"
            );
            return;
        }
    };
    thread::spawn(move || {
        for signal in signals.forever() {
            let waiting = WAITING
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if waiting.is_some_and(|waiting| waiting.try_send(()).is_ok()) {
                continue;
            }
            let _closed = CLOSING.write().unwrap_or_else(PoisonError::into_inner);
            undo_all();
            std::process::exit(128 + signal);
        }
    });
}

/// The registry is whole between statements, so a panic elsewhere does not spoil it.
fn with_registry<T>(change: impl FnOnce(&mut Registry) -> T) -> T {
    change(&mut REGISTRY.lock().unwrap_or_else(PoisonError::into_inner))
}
