//! Requests from a namespace: one, a sequence, or a crowd that is all there at once.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Answer, Connection, Exchange};
use crate::netns::Netns;

/// How long a request may take as a whole. Longer than TCP's first retransmissions of a SYN (after 1 s and 3 s), so that
/// a lost packet shows as a slow answer and a dead server as a failure, also where others keep the CPUs busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many failures in a row end a sequence: nobody answers, and each further one would take as long again.
const HOPELESS: usize = 3;

/// How many connections of a crowd are being opened at the same moment.
const OPENING: usize = 256;

/// Sends requests from a namespace to one address.
#[derive(Clone)]
pub struct Client {
    netns: Netns,
    aim: Aim,
}

/// Where requests go, and how long each may take.
#[derive(Clone, Copy)]
pub(super) struct Aim {
    pub(super) target: SocketAddr,
    patience: Duration,
}

impl Client {
    /// A client in `netns` of the server or VIP at `target`.
    #[must_use]
    pub fn new(netns: &Netns, target: impl Into<SocketAddr>) -> Self {
        let aim = Aim {
            target: target.into(),
            patience: PATIENCE,
        };
        Self {
            netns: netns.clone(),
            aim,
        }
    }

    /// The same client, waiting at most this long for a request as a whole.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.aim.patience = patience;
        self
    }

    /// One request over a connection of its own.
    ///
    /// # Errors
    /// What failed.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let aim = self.aim;
        inside(
            &self.netns,
            async move { aim.patiently(aim.single(path)).await },
        )?
    }

    /// `count` requests for `/`, each over a new connection, each after the one before; no more of them where several in
    /// a row have failed.
    ///
    /// # Errors
    /// Only where the namespace cannot be entered; failed requests are results.
    pub fn sequence(&self, count: usize) -> Result<Vec<Exchange>> {
        let aim = self.aim;
        inside(&self.netns, async move {
            let mut exchanges: Vec<Exchange> = Vec::with_capacity(count);
            let mut failed = 0;
            while exchanges.len() < count && failed < HOPELESS {
                let exchange = aim.timed(exchanges.len(), aim.single("/")).await;
                failed = if exchange.outcome.is_ok() {
                    0
                } else {
                    failed + 1
                };
                exchanges.push(exchange);
            }
            exchanges
        })
    }

    /// `count` connections, all open at once before the first is closed, one request over each. Once as many requests
    /// have failed as may be under way, those that have not begun fail at once.
    ///
    /// # Errors
    /// Where the process may not have so many descriptors; failed requests are results.
    pub fn crowd(&self, count: usize) -> Result<Vec<Exchange>> {
        raise_descriptor_limit(count + 100)?;
        let aim = self.aim;
        inside(&self.netns, async move {
            let opening = Arc::new(Semaphore::new(OPENING));
            let failed = Arc::new(AtomicUsize::new(0));
            let mut crowd = JoinSet::new();
            for number in 0..count {
                let (opening, failed) = (Arc::clone(&opening), Arc::clone(&failed));
                crowd.spawn(async move {
                    let _permit = opening.acquire().await;
                    let mut held = None;
                    let request = async {
                        let already = failed.load(Ordering::Relaxed);
                        ensure!(already < OPENING, "not sent: {already} failed before");
                        let connection = held.insert(Connection::open(aim.target).await?);
                        connection.get("/", false).await
                    };
                    let exchange = aim.timed(number, request).await;
                    failed.fetch_add(usize::from(exchange.outcome.is_err()), Ordering::Relaxed);
                    (exchange, held)
                });
            }
            // Collecting keeps every connection until the last request is answered.
            let all: Vec<_> = crowd.join_all().await;
            all.into_iter()
                .map(|(exchange, _connection)| exchange)
                .collect()
        })
    }

    /// The namespace that it sends from.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(super) fn aim(&self) -> Aim {
        self.aim
    }
}

impl Aim {
    /// A request over a connection of its own.
    pub(super) async fn single(self, path: &str) -> Result<Answer> {
        Connection::open(self.target).await?.get(path, true).await
    }

    /// A request, measured; `connection` is its number in its load.
    pub(super) async fn timed(
        self,
        connection: usize,
        request: impl Future<Output = Result<Answer>>,
    ) -> Exchange {
        let started = SystemTime::now();
        let clock = Instant::now();
        let outcome = self
            .patiently(request)
            .await
            .map_err(|error| format!("{error:#}"));
        Exchange {
            connection,
            started,
            took: clock.elapsed(),
            outcome,
        }
    }

    async fn patiently(self, request: impl Future<Output = Result<Answer>>) -> Result<Answer> {
        let answer = tokio::time::timeout(self.patience, request).await;
        answer.with_context(|| format!("no answer within {:?}", self.patience))?
    }
}

/// Runs a future to its end on a thread in the namespace.
fn inside<T: Send>(netns: &Netns, work: impl Future<Output = T> + Send) -> Result<T> {
    netns.run(|| Ok(runtime()?.block_on(work)))?
}

/// A runtime of one thread: its sockets are made where it runs.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().context("no runtime")
}

fn raise_descriptor_limit(wanted: usize) -> Result<()> {
    let wanted = u64::try_from(wanted)?;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let limit = Rlimit {
        current: maximum.or(Some(wanted)),
        maximum,
    };
    setrlimit(Resource::Nofile, limit)?;
    ensure!(
        maximum.is_none_or(|maximum| maximum >= wanted),
        "{wanted} descriptors are needed, the process may have {maximum:?}: raise `ulimit -Hn`"
    );
    Ok(())
}
