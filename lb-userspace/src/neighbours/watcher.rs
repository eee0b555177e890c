//! The task that watches: keeps a [`Table`] equal to the kernel, has neighbours probed, and tells what differs.
//!
//! 1. Subscribe, then list: nothing is missed in between.
//! 2. An event is noted in the table; one that may move a route has the routes to all destinations asked again.
//! 3. [`RESYNC`] has everything listed again; so have lost events and a failed socket, after another one was opened.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::{
    Error, Observation, Watch,
    netlink::{Event, Events, Requests},
    prober::Prober,
    table::{Effect, Table},
};
use crate::plan::Hop;

/// Between two listings of everything, in case something was missed.
const RESYNC: Duration = Duration::from_secs(30);
/// After a failed listing.
const RETRY: Duration = Duration::from_secs(1);
/// Between two rounds of asking for routes, so that a routing daemon that loads its table does not keep us busy.
const ROUTES: Duration = Duration::from_millis(20);
/// What is subscribed to.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
];

/// Watch something else.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) watch: Watch,
    /// How long to wait for neighbours that are not known.
    pub(super) patience: Duration,
    pub(super) reply: oneshot::Sender<Observation>,
}

/// The state of the task.
pub(super) struct Watcher {
    requests: Requests,
    events: Events,
    observations: mpsc::Sender<Observation>,
    watch: Watch,
    table: Table,
    prober: Prober,
    /// An order that waits for neighbours, until then.
    waiting: Option<(oneshot::Sender<Observation>, Instant)>,
    /// What the core was told last; `None` where it may take something older afterwards.
    told: Option<Observation>,
    /// What it should know.
    seen: Observation,
    routes_due: Option<Instant>,
    routes_asked: Instant,
    resync_due: Instant,
}

/// What woke the task.
enum Wake {
    Order(Option<Order>),
    Probe(IpAddr),
    Event(Option<Event>),
    Told,
    Time,
    /// Nobody listens any more.
    End,
}

impl Watcher {
    pub(super) fn open(observations: mpsc::Sender<Observation>) -> Result<Self, Error> {
        let now = Instant::now();
        Ok(Self {
            requests: Requests::open()?,
            events: Events::open(&GROUPS)?,
            observations,
            watch: Watch::default(),
            table: Table::default(),
            prober: Prober::default(),
            waiting: None,
            told: None,
            seen: Observation::default(),
            routes_due: None,
            routes_asked: now,
            resync_due: now + RESYNC,
        })
    }

    /// An observation from nothing but the kernel's present answers.
    pub(super) async fn look(watch: &Watch) -> Result<Observation, Error> {
        let requests = Requests::open()?;
        let mut table = Table::default();
        list(&requests, &mut table).await?;
        for destination in &watch.destinations {
            table
                .routes
                .insert(*destination, requests.route(*destination).await?);
        }
        Ok(table.observe(watch))
    }

    /// Lists everything anew.
    pub(super) async fn refresh(&mut self) -> Result<(), Error> {
        list(&self.requests, &mut self.table).await?;
        self.resync_due = Instant::now() + RESYNC;
        self.ask_routes().await;
        Ok(())
    }

    /// Watches until nobody gives orders or takes observations any more.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut probes: mpsc::Receiver<IpAddr>,
    ) {
        loop {
            match self.wake(&mut orders, &mut probes).await {
                Wake::Order(Some(order)) => self.obey(order).await,
                Wake::Probe(destination) => {
                    let more = std::iter::from_fn(|| probes.try_recv().ok());
                    for destination in std::iter::once(destination).chain(more) {
                        if let Some(key) = self.table.neighbour_on_the_way(destination) {
                            self.prober.want(key);
                        }
                    }
                }
                Wake::Event(Some(event)) => {
                    if self.note(event) == Effect::All {
                        debug!(
                            "events of links and neighbours were lost; listing everything again"
                        );
                        self.reopen().await;
                    }
                }
                Wake::Event(None) => {
                    warn!("the netlink socket for events has failed; opening another one");
                    self.reopen().await;
                }
                Wake::Told | Wake::Time => {}
                Wake::Order(None) | Wake::End => return,
            }
            self.catch_up().await;
        }
    }

    async fn wake(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        probes: &mut mpsc::Receiver<IpAddr>,
    ) -> Wake {
        let deadline = self.deadline();
        let untold = self.waiting.is_none() && self.told.as_ref() != Some(&self.seen);
        tokio::select! {
            order = orders.recv() => Wake::Order(order),
            Some(destination) = probes.recv() => Wake::Probe(destination),
            event = self.events.next() => Wake::Event(event),
            permit = self.observations.reserve(), if untold => match permit {
                Ok(permit) => {
                    self.told = Some(self.seen.clone());
                    permit.send(self.seen.clone());
                    Wake::Told
                }
                Err(_) => Wake::End,
            },
            () = tokio::time::sleep_until(deadline.into()) => Wake::Time,
        }
    }

    /// When something is due without anything happening.
    fn deadline(&self) -> Instant {
        let waiting = self.waiting.as_ref().map(|(_, until)| *until);
        let probe = self.prober.next(Instant::now());
        [self.routes_due, waiting, probe]
            .into_iter()
            .flatten()
            .fold(self.resync_due, Instant::min)
    }

    async fn obey(&mut self, order: Order) {
        if let Some((earlier, _)) = self.waiting.take() {
            // Whoever asked may have given up, too.
            drop(earlier.send(self.seen.clone()));
        }
        self.watch = order.watch;
        self.waiting = Some((order.reply, Instant::now() + order.patience));
        self.ask_routes().await;
    }

    /// Notes an event and all that are here already, so that many are answered by one observation.
    fn note(&mut self, event: Event) -> Effect {
        let mut event = Some(event);
        while let Some(next) = event {
            match self.table.note(next) {
                Effect::Noted => {}
                Effect::Routes => {
                    self.routes_due.get_or_insert(self.routes_asked + ROUTES);
                }
                Effect::All => return Effect::All,
            }
            event = self.events.at_hand();
        }
        Effect::Noted
    }

    /// Opens another socket for events, and has everything listed.
    async fn reopen(&mut self) {
        match (Requests::open(), Events::open(&GROUPS)) {
            (Ok(requests), Ok(events)) => {
                (self.requests, self.events) = (requests, events);
                self.resync_due = Instant::now();
            }
            (Err(error), _) | (_, Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "links and neighbours are not watched; trying again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Does what is due, and sees what differs.
    async fn catch_up(&mut self) {
        let now = Instant::now();
        if self.resync_due <= now
            && let Err(error) = self.refresh().await
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "can't list links and neighbours; trying again"
            );
            self.resync_due = now + RETRY;
        }
        if self.routes_due.is_some_and(|at| at <= now) {
            self.ask_routes().await;
        }
        let neighbours: Vec<_> = self.table.wanted(&self.watch).collect();
        for key in self.prober.due(neighbours.into_iter(), now) {
            if let Err(error) = self.requests.probe(key).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "can't probe a neighbour; trying again"
                );
            }
        }
        self.table.host_forwards = host_forwards();
        self.seen = self.table.observe(&self.watch);
        let settled = self
            .seen
            .ways
            .values()
            .all(|way| !matches!(way.hop, Hop::Keep { .. }));
        if let Some((reply, _)) = self.waiting.take_if(|(_, until)| settled || *until <= now) {
            self.told = None;
            // Whoever asked may have given up; it is told once more anyway.
            drop(reply.send(self.seen.clone()));
        }
    }

    async fn ask_routes(&mut self) {
        self.routes_due = None;
        self.table.forget_others(&self.watch);
        for destination in &self.watch.destinations {
            match self.requests.route(*destination).await {
                Ok(answer) => {
                    self.table.routes.insert(*destination, answer);
                }
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "can't ask for a route; trying again"
                    );
                    self.resync_due = self.resync_due.min(Instant::now() + RETRY);
                }
            }
        }
        self.routes_asked = Instant::now();
    }
}

async fn list(requests: &Requests, table: &mut Table) -> Result<(), Error> {
    let links = requests.links().await?;
    let addresses = requests.addresses().await?;
    let neighbours = requests.neighbours().await?;
    table.links = links.into_iter().map(|row| (row.ifindex, row)).collect();
    table.addresses = addresses;
    table.neighbours = neighbours.into_iter().map(|row| (row.key, row)).collect();
    table.host_forwards = host_forwards();
    Ok(())
}

/// `net.ipv4.ip_forward` of the calling thread's network namespace. A host that does not say does not forward.
fn host_forwards() -> bool {
    fs::read("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.first() == Some(&b'1'))
}
