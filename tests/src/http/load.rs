//! Load that goes on while a test does something: a constant rate of new connections, or connections that stay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use std::{io, panic};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::client::{Aim, runtime};
use super::{Client, Connection, Exchange};

/// Requests that are being sent in the background until [`Load::stop`] or the drop.
pub struct Load {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<io::Result<Result<()>>>>,
}

struct Shared {
    stop: AtomicBool,
    exchanges: Mutex<Vec<Exchange>>,
}

impl Load {
    /// `rate` requests a second, each over a new connection and started at its time whatever became of the others. What
    /// a thread that got no CPU has missed is left out and not made up for: no crowd waits where the machine is too slow.
    #[must_use]
    pub fn constant(client: &Client, rate: u32) -> Self {
        let aim = client.aim();
        Self::start(client, move |shared| constant(shared, aim, rate))
    }

    /// `count` connections that stay open, each sending a request every `pause` after the answer to the one before.
    /// One that fails is not opened again.
    #[must_use]
    pub fn sessions(client: &Client, count: usize, pause: Duration) -> Self {
        let aim = client.aim();
        Self::start(client, move |shared| sessions(shared, aim, count, pause))
    }

    fn start<F>(client: &Client, send: impl FnOnce(Arc<Shared>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            exchanges: Mutex::default(),
        });
        let sender = {
            let shared = Arc::clone(&shared);
            client.netns().spawn(move || {
                runtime()?.block_on(send(shared));
                Ok(())
            })
        };
        Self {
            shared,
            sender: Some(sender),
        }
    }

    /// The requests that have ended so far, in the order of their ends.
    #[must_use]
    pub fn so_far(&self) -> Vec<Exchange> {
        self.shared.exchanges().clone()
    }

    /// The requests that started at `from` or later and have ended.
    #[must_use]
    pub fn since(&self, from: SystemTime) -> Vec<Exchange> {
        let exchanges = self.shared.exchanges();
        exchanges
            .iter()
            .filter(|exchange| exchange.started >= from)
            .cloned()
            .collect()
    }

    /// Starts no more requests, waits for those under way, and gives all in the order of their starts.
    ///
    /// # Errors
    /// Where the sending thread could not work.
    pub fn stop(mut self) -> Result<Vec<Exchange>> {
        self.end()?;
        let mut exchanges = std::mem::take(&mut *self.shared.exchanges());
        exchanges.sort_by_key(|exchange| exchange.started);
        Ok(exchanges)
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(sender) = self.sender.take() else {
            return Ok(());
        };
        let sent = sender
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic));
        sent.context("the load's thread cannot enter its namespace")?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Only a test that is failing already drops a load that runs. Its thread is waited for all the same: it keeps
        // the namespace.
        if let Err(error) = self.end() {
            eprintln!("harness: {error:#}");
        }
    }
}

impl Shared {
    fn exchanges(&self) -> std::sync::MutexGuard<'_, Vec<Exchange>> {
        self.exchanges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

async fn constant(shared: Arc<Shared>, aim: Aim, rate: u32) {
    let mut clock = interval(Duration::from_secs(1) / rate);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut requests = JoinSet::new();
    let mut number = 0;
    while !shared.stopped() {
        clock.tick().await;
        let shared = Arc::clone(&shared);
        requests.spawn(async move {
            let exchange = aim.timed(number, aim.single("/")).await;
            shared.exchanges().push(exchange);
        });
        number += 1;
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

async fn sessions(shared: Arc<Shared>, aim: Aim, count: usize, pause: Duration) {
    let mut all = JoinSet::new();
    for number in 0..count {
        let shared = Arc::clone(&shared);
        all.spawn(async move {
            let mut connection = None;
            while !shared.stopped() {
                let exchange = aim
                    .timed(number, async {
                        let open = match connection.take() {
                            Some(open) => open,
                            None => Connection::open(aim.target).await?,
                        };
                        connection.insert(open).get("/", false).await
                    })
                    .await;
                let failed = exchange.outcome.is_err();
                shared.exchanges().push(exchange);
                if failed {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        });
    }
    all.join_all().await;
}
