//! What the core asks of the host: links, routes, neighbours and addresses of its network, and health checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    addresses::{self, Addresses, Announcement, Refused, Wanted},
    health::Checks,
    model::Pool,
    neighbours::{self, Error, Neighbours, Observation, Watch},
};

/// The health checks.
pub(super) trait Checking: Send + 'static {
    /// Makes the running checks those of these pools.
    fn reconfigure(&mut self, pools: &[Pool]);
}

impl Checking for Checks {
    fn reconfigure(&mut self, pools: &[Pool]) {
        Self::reconfigure(self, pools);
    }
}

/// The host's network. One for tests stands in for [`LinuxHost`].
pub(super) trait Host: Send + 'static {
    /// Looks once at links and routes, without waiting.
    fn look(&self, watch: Watch) -> impl Future<Output = Result<Observation, Error>> + Send;

    /// Watches something else from now on; waits at most `patience` for neighbours.
    fn watch(
        &self,
        watch: Watch,
        patience: Duration,
    ) -> impl Future<Output = Result<Observation, Error>> + Send;

    /// Packets wait for the neighbour on the way to this address.
    fn probe(&self, destination: IpAddr);

    /// Keeps these VIPs as addresses of the host; `None` takes them away.
    fn keep(&mut self, wanted: Option<Wanted>) -> impl Future<Output = Result<(), Error>> + Send;

    /// The VIPs that the host does not take, and why.
    fn refused(&self) -> BTreeMap<Ipv4Addr, Refused> {
        BTreeMap::new()
    }

    /// Removes the VIPs that an earlier agent has left on these interfaces; gives them.
    fn forget(
        &mut self,
        interfaces: Vec<String>,
    ) -> impl Future<Output = Result<BTreeSet<Ipv4Addr>, Error>> + Send;
}

/// The host that the agent runs on.
pub(super) struct LinuxHost {
    neighbours: Neighbours,
    addresses: Option<Addresses>,
    announcements: mpsc::Sender<Announcement>,
}

impl LinuxHost {
    pub(super) fn new(neighbours: Neighbours, announcements: mpsc::Sender<Announcement>) -> Self {
        Self {
            neighbours,
            addresses: None,
            announcements,
        }
    }
}

impl Host for LinuxHost {
    async fn look(&self, watch: Watch) -> Result<Observation, Error> {
        neighbours::look(&watch).await
    }

    async fn watch(&self, watch: Watch, patience: Duration) -> Result<Observation, Error> {
        self.neighbours.watch(watch, patience).await
    }

    fn probe(&self, destination: IpAddr) {
        self.neighbours.probe(destination);
    }

    async fn keep(&mut self, wanted: Option<Wanted>) -> Result<(), Error> {
        match (wanted, &self.addresses) {
            (Some(wanted), Some(addresses)) => addresses.want(wanted),
            (Some(wanted), None) => {
                self.addresses = Some(Addresses::start(wanted, self.announcements.clone()).await?);
                Ok(())
            }
            (None, _) => match self.addresses.take() {
                Some(addresses) => addresses.withdraw().await.map(drop),
                None => Ok(()),
            },
        }
    }

    fn refused(&self) -> BTreeMap<Ipv4Addr, Refused> {
        let addresses = self.addresses.as_ref();
        addresses.map(Addresses::refused).unwrap_or_default()
    }

    async fn forget(&mut self, interfaces: Vec<String>) -> Result<BTreeSet<Ipv4Addr>, Error> {
        addresses::remove(&interfaces).await
    }
}
