//! The task that keeps the addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{
    Announcement, Error, PROTOCOL, Refused, Wanted,
    announcer::Announcer,
    claims::Claims,
    schedule::Place,
    steps::{Step, steps},
};
use crate::neighbours::{
    netlink::{Event, Events, Requests},
    table::{AddressRow, LinkRow},
};

/// Between two looks at everything, in case something was missed.
const RESYNC: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// What is subscribed to.
const GROUPS: [MulticastGroup; 2] = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];

/// What the task is told.
#[derive(Debug)]
pub(super) enum Order {
    Want(Wanted),
    Withdraw(oneshot::Sender<Result<BTreeSet<Ipv4Addr>, Error>>),
}

/// The state of the task.
pub(super) struct Keeper {
    requests: Requests,
    events: Events,
    announcer: Announcer,
    claims: Claims,
    /// Tells what the claims refuse.
    refused: watch::Sender<BTreeMap<Ipv4Addr, Refused>>,
    wanted: Wanted,
    /// Addresses of somebody else's, of which was said that they are left alone.
    foreign: BTreeSet<Ipv4Addr>,
    look_at: Instant,
}

impl Keeper {
    pub(super) fn open(
        wanted: Wanted,
        announcements: mpsc::Sender<Announcement>,
        refused: watch::Sender<BTreeMap<Ipv4Addr, Refused>>,
    ) -> Result<Self, Error> {
        Ok(Self {
            requests: Requests::open()?,
            events: Events::open(&GROUPS)?,
            announcer: Announcer::new(announcements),
            claims: Claims::default(),
            refused,
            wanted,
            foreign: BTreeSet::new(),
            look_at: Instant::now(),
        })
    }

    /// Keeps the addresses until nobody gives orders any more.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Want(wanted)) => self.want(wanted).await,
                    Some(Order::Withdraw(reply)) => {
                        // Whoever asked may have given up; the addresses are gone all the same.
                        return drop(reply.send(self.withdraw().await));
                    }
                    None => return,
                },
                event = self.events.next() => self.note(event).await,
                () = self.announcer.hand_out() => {}
                () = tokio::time::sleep_until(self.look_at.into()) => {}
            }
            let now = Instant::now();
            if self.look_at <= now
                && let Err(error) = self.keep().await
            {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "can't keep the VIPs; trying again"
                );
                self.look_at = now + RETRY;
            }
        }
    }

    /// Makes it so, as far as the kernel lets it: the first refusal is the error, after everything else was done.
    pub(super) async fn keep(&mut self) -> Result<(), Error> {
        self.look_at = Instant::now() + RESYNC;
        let links = self.requests.links().await?;
        let addresses = self.requests.addresses().await?;
        let link = links.iter().find(|link| link.name == self.wanted.interface);
        let steps = steps(&self.wanted, &links, &addresses);
        let (additions, removals): (Vec<_>, Vec<_>) =
            steps.iter().partition(|step| matches!(step, Step::Add(_)));
        let mut done = Ok(());
        // First, so that this host does not answer for what is asked for.
        for step in removals {
            done = done.and(take(&self.requests, step).await.map(drop));
        }
        let missing = additions.iter().map(|step| step.row().address).collect();
        let mut free = BTreeSet::new();
        // Without a carrier nobody could be asked, and nobody could come.
        if let Some(link) = link.filter(|link| link.up || !link.ethernet) {
            let claims = &mut self.claims;
            free = claims
                .free(link, &missing, &links, &addresses, &self.requests)
                .await?;
            self.look_at = claims
                .next()
                .map_or(self.look_at, |at| at.min(self.look_at));
        }
        for step in additions {
            if free.contains(&step.row().address) {
                done = done.and(take(&self.requests, step).await.map(drop));
            }
        }
        self.tell_foreign(&addresses);
        let mut refused = self.claims.refused();
        refused.retain(|address, _| self.wanted.addresses.contains(address));
        let mut held = self.wanted.addresses.clone();
        held.retain(|address| !self.foreign.contains(address) && !refused.contains_key(address));
        self.announcer
            .set(link.and_then(place), &held, Instant::now());
        self.refused.send_replace(refused);
        done
    }

    /// Takes the addresses from the interface that is left, then wants others.
    async fn want(&mut self, wanted: Wanted) {
        if wanted.interface != self.wanted.interface
            && let Err(error) = self.withdraw().await
        {
            let interface = &self.wanted.interface;
            warn!(error = &error as &dyn std::error::Error, %interface, "can't remove the VIPs from an interface");
        }
        self.wanted = wanted;
        self.look_at = Instant::now();
    }

    async fn withdraw(&mut self) -> Result<BTreeSet<Ipv4Addr>, Error> {
        self.announcer.stop();
        super::remove(std::slice::from_ref(&self.wanted.interface)).await
    }

    async fn note(&mut self, event: Option<Event>) {
        if event.is_some() {
            while self.events.at_hand().is_some() {}
        } else {
            match (Requests::open(), Events::open(&GROUPS)) {
                (Ok(requests), Ok(events)) => (self.requests, self.events) = (requests, events),
                (Err(error), _) | (_, Err(error)) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "addresses are not watched; trying again"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        self.look_at = Instant::now();
    }

    /// Says once of each wanted address of somebody else's that it is left alone.
    fn tell_foreign(&mut self, addresses: &[AddressRow]) {
        let foreign = addresses
            .iter()
            .filter(|row| row.protocol != PROTOCOL)
            .map(|row| row.address);
        let foreign: BTreeSet<_> = foreign
            .filter(|address| self.wanted.addresses.contains(address))
            .collect();
        for address in foreign.difference(&self.foreign) {
            info!(%address, "the VIP is configured already, not by this agent; it is left alone and not announced");
        }
        self.foreign = foreign;
    }
}

/// Takes a step; whether there was anything left to do.
pub(super) async fn take(requests: &Requests, step: &Step) -> Result<bool, Error> {
    let done = match step {
        Step::Add(row) => requests.add_address(*row).await,
        Step::Remove(row) => requests.remove_address(*row).await,
    };
    match done {
        Ok(()) => {
            let address = step.row().address;
            match step {
                Step::Add(_) => info!(%address, "VIP added"),
                Step::Remove(_) => info!(%address, "VIP removed"),
            }
            Ok(true)
        }
        // Somebody was quicker: it is there, or gone, or its interface is.
        Err(Error::Refused { source, .. }) if is_done(&source) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_done(error: &io::Error) -> bool {
    let codes = [libc::EEXIST, libc::EADDRNOTAVAIL, libc::ENODEV];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Where to announce; nowhere while frames can't leave or the interface has no Ethernet address.
fn place(link: &LinkRow) -> Option<Place> {
    (link.up && link.ethernet).then_some(Place {
        ifindex: link.ifindex,
        mac: link.mac,
    })
}
