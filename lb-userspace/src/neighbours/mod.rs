//! Links, routes and neighbours of this host, watched by netlink.
//!
//! Takes the names of the interfaces of the configuration and the addresses to resolve ([`Watch`]); gives
//! [`Observation`]s: what each interface is at the moment, and the way to each address. A task watches the kernel and
//! sends a whole observation whenever one differs from the last. It asks the kernel to probe neighbours that are not
//! known or grow stale. It writes no map and changes no route and no address.

pub(crate) mod netlink;
pub(crate) mod other_interface;
mod prober;
mod reason;
pub(crate) mod table;
mod watcher;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tracing::trace;

pub use reason::Reason;
use watcher::{Order, Watcher};

use crate::plan::Hop;

/// Probes that may wait for the watcher; more are for the same few neighbours.
const PROBES: usize = 64;

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Names of the interfaces of the configuration.
    pub interfaces: BTreeSet<String>,
    /// Addresses to which ways are wanted: those of backends, removed ones that still hold flows among them.
    pub destinations: BTreeSet<IpAddr>,
}

/// What the kernel says of everything in a [`Watch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// `net.ipv4.ip_forward`.
    pub host_forwards: bool,
    /// Each interface of the watch; `None` while it does not exist.
    pub links: BTreeMap<String, Option<Link>>,
    /// The way to each destination of the watch.
    pub ways: BTreeMap<IpAddr, Resolution>,
}

impl Observation {
    /// Whether this is of everything in `watch` and of nothing else. One that was made before another watch was given
    /// may arrive after it.
    #[must_use]
    pub fn answers(&self, watch: &Watch) -> bool {
        self.links.keys().eq(&watch.interfaces) && self.ways.keys().eq(&watch.destinations)
    }
}

/// An interface that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index; another one after the interface was made anew.
    pub ifindex: u32,
    /// Differs from before where the interface was made anew, which the index alone need not show.
    pub made: u32,
    /// MAC address; zeros where the interface has none.
    pub mac: [u8; 6],
    /// Set up, and its carrier is there.
    pub up: bool,
    /// Its first IPv4 address that is not one of [`crate::addresses`].
    pub ipv4: Option<Ipv4Addr>,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
}

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// For the planner.
    pub hop: Hop,
    /// The host's own address on the way, which its packets to there come from; `None` where it is not known.
    pub source: Option<IpAddr>,
    /// Why it is not [`Hop::Known`]; displayed, a whole sentence without a full stop.
    pub reason: Option<Reason>,
}

/// Netlink failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No socket.
    #[error(
        "can't open a netlink socket; help: allow AF_NETLINK (`RestrictAddressFamilies=` of the systemd unit)"
    )]
    Open(#[source] io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to {request}{help}")]
    Refused {
        /// What was asked, in words.
        request: String,
        /// What helps, where that is known.
        help: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An answer made no sense or never came.
    #[error("no answer from netlink when asked to {request}")]
    NoAnswer {
        /// What was asked, in words.
        request: String,
    },
    /// The task that watches has ended.
    #[error("the task that watches links and neighbours has stopped")]
    Stopped,
}

impl Error {
    /// The kernel refused to do what `request` says.
    pub(crate) fn refused(request: String, source: io::Error) -> Self {
        let help = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "; help: give the process CAP_NET_ADMIN",
            _ => "",
        };
        Self::Refused {
            request,
            help,
            source,
        }
    }
}

/// Speaks to the watching task, which ends when the last of these is gone.
#[derive(Clone, Debug)]
pub struct Neighbours {
    orders: mpsc::UnboundedSender<Order>,
    probes: mpsc::Sender<IpAddr>,
}

impl Neighbours {
    /// Starts to watch the network namespace of the calling thread. Returns with the first observation: at once where
    /// every way is known or can't be, and after `patience` in any case. Later ones go to `observations`, whenever
    /// something differs from the last; where the receiver is slow it gets only the newest.
    ///
    /// # Errors
    /// No socket, or the kernel refused to list links, addresses or neighbours.
    pub async fn start(
        watch: Watch,
        patience: Duration,
        observations: mpsc::Sender<Observation>,
    ) -> Result<(Self, Observation), Error> {
        let (orders, orders_out) = mpsc::unbounded_channel();
        let (probes, probes_out) = mpsc::channel(PROBES);
        let mut watcher = Watcher::open(observations)?;
        watcher.refresh().await?;
        tokio::spawn(watcher.run(orders_out, probes_out));
        let neighbours = Self { orders, probes };
        let first = neighbours.watch(watch, patience).await?;
        Ok((neighbours, first))
    }

    /// Watches something else from now on. Returns with the first observation of it, as [`Neighbours::start`] does.
    /// Nothing goes to `observations` meanwhile. One that was under way may be taken after this one: it does not
    /// [`answer`](Observation::answers) the new watch, or is followed by the newest at once.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn watch(&self, watch: Watch, patience: Duration) -> Result<Observation, Error> {
        let (reply, answer) = oneshot::channel();
        self.orders
            .send(Order {
                watch,
                patience,
                reply,
            })
            .map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }

    /// A packet waits for the neighbour on the way to `destination`: has it probed soon. Cheap, may be called for
    /// every packet.
    pub fn probe(&self, destination: IpAddr) {
        if self.probes.try_send(destination).is_err() {
            trace!(%destination, "the watcher is busy probing; the next packet asks again");
        }
    }
}

/// Looks once, without probing or waiting: for what must be known before anything is changed. Whether an address is
/// local to this host is in the reason of its way ([`Reason::Local`]).
///
/// # Errors
/// As [`Neighbours::start`].
pub async fn look(watch: &Watch) -> Result<Observation, Error> {
    Watcher::look(watch).await
}
