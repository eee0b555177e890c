//! The core's task: takes inputs one after the other and reconciles after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use super::{
    attachments::Attachments,
    desired::Constants,
    health::{self, Health},
    host::{Checking, Host},
    inputs::{Input, Inputs},
    message::Message,
    plane::{Plane, PlaneLost},
    reconcile::Retry,
    redirects::Quiet,
    reload::Pending,
};
use crate::{
    addresses::Wanted,
    dataplane::{Dataplane, Readings, TableError},
    model::Model,
    neighbours::{Observation, Watch},
    nic::Conditions,
    observe::Observer,
    plan::{Actual, GRACE, Tables},
    status::AgentReport,
};

/// How often the maps in force are compared with what they should hold.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How often the flow table is looked through for ancient entries; it takes weeks until one is.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);
/// How often counters are read for the rates.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The flow table is scanned after [`GRACE`] where that may free an id. While flows refer to all of them it is scanned
/// ever less often, down to this.
const SCAN_AT_LEAST: Duration = Duration::from_secs(64);
/// Inputs that go into one reconcile, at most.
const AT_ONCE: usize = 256;

/// What a core is made of.
pub(super) struct Parts<H> {
    pub(super) model: Arc<Model>,
    pub(super) checks: Box<dyn Checking>,
    pub(super) host: H,
    pub(super) plane: Box<dyn Dataplane>,
    pub(super) report: AgentReport,
}

/// The state of the agent.
pub(super) struct Core<H> {
    pub(super) model: Arc<Model>,
    pub(super) checks: Box<dyn Checking>,
    pub(super) host: H,
    pub(super) plane: Plane,
    pub(super) observer: Arc<Observer>,
    pub(super) constants: Constants,
    pub(super) report: AgentReport,
    /// Why the agent is not ready although everything else is well: pins that are lost.
    pub(super) obstacle: Option<String>,
    /// Of every backend is known whether it is up, by a check or by the maps that were adopted; or it was waited for.
    pub(super) first_checked: bool,
    /// Ends the wait for first results: the agent is to end.
    pub(super) hurry: Arc<Notify>,
    /// The reload whose program is being loaded.
    pub(super) pending: Option<Pending>,
    /// What the reload under way has to warn of; `None` outside of one.
    pub(super) warnings: Option<Vec<String>>,
    pub(super) health: Health,
    pub(super) watch: Watch,
    pub(super) network: Observation,
    pub(super) actual: Actual,
    pub(super) attachments: Attachments,
    /// Index of each interface, and which of those that had it.
    pub(super) made: BTreeMap<String, (u32, u32)>,
    /// Under which conditions an interface of mode `auto` came to be in generic mode.
    pub(super) generic_under: BTreeMap<String, Conditions>,
    /// Interfaces whose mode is `auto` from now on, and that are in generic mode: native mode is tried once more.
    pub(super) native_again: BTreeSet<String>,
    pub(super) quiet: Quiet,
    pub(super) retry: Retry,
    /// The VIPs that the host was last told to have.
    pub(super) addresses: Option<Wanted>,
    /// Told after the maps say so too: from then on no new flow goes wrong.
    pub(super) transitions: Vec<health::Change>,
    /// Refusals of the last plan, which were logged.
    pub(super) refused: Vec<String>,
    /// What is wrong with the ways to backends, which was logged.
    pub(super) ways: BTreeMap<IpAddr, String>,
    check_at: Instant,
    scan_at: Option<Instant>,
    /// Between the last scan of the flow table and the next.
    scan_after: Duration,
    /// A scan has begun and not ended.
    scanning: bool,
    pub(super) readings: Arc<dyn Readings>,
    pub(super) tasks: JoinSet<()>,
}

/// Whether the core goes on.
pub(super) enum Next {
    /// Nothing that the maps depend on has changed.
    Wait,
    /// Something has.
    Reconcile,
    /// No further.
    End,
}

impl<H: Host> Core<H> {
    pub(super) fn new(parts: Parts<H>) -> Self {
        let Parts {
            model,
            checks,
            host,
            plane,
            report,
        } = parts;
        let (readings, ticks_per_second) = (plane.readings(), plane.ticks_per_second());
        let flow_seed = plane.flow_seed();
        Self {
            model,
            checks,
            host,
            plane: Plane::new(plane),
            observer: Arc::new(Observer::new(Arc::clone(&readings), ticks_per_second)),
            constants: Constants {
                ticks_per_second,
                flow_seed,
            },
            report,
            obstacle: None,
            first_checked: false,
            hurry: Arc::default(),
            pending: None,
            warnings: None,
            health: Health::default(),
            watch: Watch::default(),
            network: Observation::default(),
            actual: Actual::default(),
            attachments: Attachments::default(),
            made: BTreeMap::new(),
            generic_under: BTreeMap::new(),
            native_again: BTreeSet::new(),
            quiet: Quiet::default(),
            retry: Retry::default(),
            addresses: None,
            transitions: Vec::new(),
            refused: Vec::new(),
            ways: BTreeMap::new(),
            check_at: Instant::now() + CHECK_EVERY,
            scan_at: None,
            scan_after: GRACE,
            scanning: false,
            readings,
            tasks: JoinSet::new(),
        }
    }

    /// Takes inputs until the end.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        loop {
            let deadline = self.deadline();
            let mut input = inputs.next(deadline).await;
            let mut next = Next::Wait;
            for _ in 0..AT_ONCE {
                match self.take(input, &inputs).await {
                    Ok(Next::Wait) => {}
                    Ok(Next::Reconcile) => next = Next::Reconcile,
                    Ok(Next::End) => return,
                    Err(error) => return tracing::error!(event = "core_failed", "{error}"),
                }
                match inputs.pending() {
                    Some(another) => input = another,
                    None => break,
                }
            }
            if matches!(next, Next::Reconcile)
                && let Err(error) = self.reconcile().await
            {
                return tracing::error!(event = "core_failed", "{error}");
            }
            self.first_checked |= !self.health.is_undecided();
        }
    }

    async fn take(&mut self, input: Input, inputs: &Inputs) -> Result<Next, PlaneLost> {
        match input {
            Input::Health(result) => {
                let change = self.health.observe(&result, SystemTime::now());
                let next = if change.is_some() {
                    Next::Reconcile
                } else {
                    Next::Wait
                };
                self.transitions.extend(change);
                Ok(next)
            }
            Input::Message(message) => self.answer(message, inputs).await,
            // Made before the present watch was given.
            Input::Network(network) if !network.answers(&self.watch) => Ok(Next::Wait),
            Input::Network(network) => {
                tell_links(&self.network, &network);
                self.network = network;
                Ok(Next::Reconcile)
            }
            Input::Announce(announcement) => {
                let address = announcement.address;
                let sent = self
                    .plane
                    .with(move |plane| plane.send(announcement.ifindex, &announcement.frame))
                    .await?;
                match sent {
                    Ok(()) => tracing::debug!(%address, "announced by gratuitous ARP"),
                    Err(error) => {
                        tracing::warn!(%address, %error, "can't be announced by gratuitous ARP");
                    }
                }
                Ok(Next::Wait)
            }
            Input::Wanted(backends) => {
                for (id, address, _) in self.actual.tables.tenants() {
                    if backends.contains(&id) {
                        self.host.probe(address.ip());
                    }
                }
                Ok(Next::Wait)
            }
            Input::Scanned(Ok(found)) => {
                self.scanning = false;
                self.actual.book.scanned(&found);
                Ok(Next::Reconcile)
            }
            Input::Scanned(Err(error)) => {
                self.scanning = false;
                tracing::warn!(%error, "the flow table can't be read; ids of removed backends stay taken");
                Ok(Next::Wait)
            }
            Input::Loaded(loaded) => self.loaded(loaded).await,
            Input::Lost(losses) => self.recover(losses).await,
            Input::Time => self.tick(inputs).await,
            Input::Ended(reason) => {
                tracing::error!(
                    event = "core_failed",
                    "the core ends: {reason}; what is in force stays"
                );
                Ok(Next::End)
            }
        }
    }

    async fn answer(&mut self, message: Message, inputs: &Inputs) -> Result<Next, PlaneLost> {
        match message {
            Message::Ping { reply } => {
                if reply.send(()).is_err() {
                    tracing::trace!("nobody waits for the answer any more");
                }
                Ok(Next::Wait)
            }
            Message::Status { reply } => {
                let (observer, known) = (Arc::clone(&self.observer), self.known());
                self.tasks.spawn(async move {
                    let now = Instant::now().into_std();
                    let report =
                        spawn_blocking(move || observer.report(&known, now, SystemTime::now()))
                            .await;
                    if let Ok(report) = report {
                        drop(reply.send(report));
                    }
                });
                Ok(Next::Wait)
            }
            Message::ConfigRefused { reason } => {
                self.report.config_error = Some(reason);
                Ok(Next::Wait)
            }
            Message::Problem { part, problem } => {
                self.report.note(part, problem);
                Ok(Next::Wait)
            }
            Message::Reload { model, reply } => self.reload(*model, reply, inputs).await,
            Message::Shutdown { reply } => {
                let left = self.take_down().await;
                drop(reply.send(if left.is_empty() { Ok(()) } else { Err(left) }));
                Ok(Next::End)
            }
        }
    }

    /// What is due.
    async fn tick(&mut self, inputs: &Inputs) -> Result<Next, PlaneLost> {
        let now = Instant::now();
        while self.tasks.try_join_next().is_some() {}
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan_at = None;
            self.scanning = true;
            let (observer, scans) = (Arc::clone(&self.observer), inputs.scans());
            self.tasks.spawn(async move {
                let scanned = spawn_blocking(move || observer.references(now.into_std())).await;
                if let Ok(found) = scanned {
                    // Closed only when the core has ended.
                    drop(scans.send(found).await);
                }
            });
        }
        if self.check_at <= now {
            self.check_at = now + CHECK_EVERY;
            self.compare().await?;
        }
        Ok(Next::Reconcile)
    }

    /// When something is due next.
    fn deadline(&mut self) -> Instant {
        let book = &self.actual.book;
        if book.waits_for_scan() && !book.is_held() {
            // Something may be free soon, whatever was waited for before.
            self.scan_after = GRACE;
            let soon = Instant::now() + GRACE;
            self.scan_at = self.scan_at.map(|at| at.min(soon));
        }
        if self.scan_at.is_none() && !self.scanning && book.waits_for_scan() {
            self.scan_at = Some(Instant::now() + self.scan_after);
            self.scan_after = (self.scan_after * 2).min(SCAN_AT_LEAST);
        }
        let rested = self.actual.book.next_wake().map(Instant::from_std);
        let due = [
            self.scan_at,
            self.retry.due(),
            self.attachments.due(),
            rested,
        ];
        due.into_iter().flatten().fold(self.check_at, Instant::min)
    }

    pub(super) fn sample_counters(&mut self) {
        let observer = Arc::clone(&self.observer);
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let observer = Arc::clone(&observer);
                let now = Instant::now().into_std();
                if let Err(error) = spawn_blocking(move || observer.sample(now)).await {
                    tracing::error!(%error, "counters are not read");
                }
            }
        });
    }

    pub(super) fn expire_ancient_flows(&mut self) {
        let observer = Arc::clone(&self.observer);
        self.tasks.spawn(async move {
            loop {
                tokio::time::sleep(EXPIRE_EVERY).await;
                let observer = Arc::clone(&observer);
                match spawn_blocking(move || observer.expire()).await {
                    Ok(Ok(buckets)) => tracing::debug!(buckets, "ancient flows freed"),
                    Ok(Err(error)) => tracing::warn!(%error, "ancient flows can't be freed"),
                    Err(_) => {}
                }
            }
        });
    }

    /// Reads the maps in force.
    pub(super) async fn fresh_tables(&mut self) -> Result<Result<Tables, TableError>, PlaneLost> {
        let readings = Arc::clone(&self.readings);
        spawn_blocking(move || readings.tables())
            .await
            .map_err(|_| PlaneLost)
    }
}

/// Logs which interfaces went down or came up.
fn tell_links(before: &Observation, now: &Observation) {
    for (interface, link) in &now.links {
        let earlier = before.links.get(interface).copied().flatten();
        match (earlier.map(|link| link.up), link.map(|link| link.up)) {
            (Some(true), Some(false)) => {
                tracing::warn!(event = "interface_down", interface, "the interface is down");
            }
            (Some(false), Some(true)) => {
                tracing::info!(
                    event = "interface_up",
                    interface,
                    "the interface is up again"
                );
            }
            _ => {}
        }
    }
}
