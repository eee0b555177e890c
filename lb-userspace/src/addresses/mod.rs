//! The VIPs on the first interface, where `manage_addresses` asks for it.
//!
//! Takes the name of the interface and the addresses wanted there ([`Wanted`]); adds them as /32, takes away those no
//! longer wanted, adds them again when the interface comes back, and gives gratuitous ARP to be sent
//! ([`Announcement`]). The kernel remembers which addresses are the agent's ([`PROTOCOL`]), so that this is known
//! after a crash too; an address that somebody else configured, on whatever interface, is neither added nor removed.
//! One that another host answers for, or that is a network or broadcast address, is not taken ([`Refused`]) and is looked
//! at again every few seconds; its services stay in the maps. An address is added while the interface is up, for only
//! then can other hosts be asked. One that another host takes later stays. It sends no frame itself.

mod announcer;
mod arp;
mod claims;
mod keeper;
mod schedule;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use keeper::{Keeper, Order};
use tokio::sync::{mpsc, oneshot, watch};

pub use crate::neighbours::Error;
use crate::neighbours::netlink::Requests;

/// `IFA_PROTO` of the agent's addresses: the letter L, 76, which no well-known program uses. Linux 5.18 and newer keep
/// it; `ip -d address` of iproute2 6.3 and newer shows it.
pub const PROTOCOL: u8 = 0x4c;
/// Bytes of an ARP frame.
pub const FRAME: usize = 42;

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where the addresses belong.
    pub interface: String,
    /// The addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Addresses that stay where they are for now, but are neither added nor announced. All others of the agent's are taken
    /// away.
    pub leaving: BTreeSet<Ipv4Addr>,
}

/// A gratuitous ARP to be sent, by [`crate::dataplane::Dataplane::send`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// The VIP.
    pub address: Ipv4Addr,
    /// From the Ethernet header on.
    pub frame: [u8; FRAME],
}

/// Why a VIP is not taken. `Display` gives the reason and the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another host answers for it.
    Held {
        /// The MAC address that the answer came from.
        mac: [u8; 6],
    },
    /// It is an end of the network of an address of this host.
    NoHost {
        /// The last address; otherwise the first.
        is_broadcast: bool,
        /// The address of this host.
        of: Ipv4Addr,
        /// Length of its prefix.
        prefix: u8,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { mac } => write!(
                f,
                "another host has it, {} answers ARP for it; help: take it from that host, which is noticed within \
                 10 s, or use another address",
                mac.map(|byte| format!("{byte:02x}")).join(":")
            ),
            Self::NoHost {
                is_broadcast,
                of,
                prefix,
            } => {
                let (what, end) = if *is_broadcast {
                    ("broadcast address", "")
                } else {
                    ("address", " itself")
                };
                write!(
                    f,
                    "it is the {what} of the network of {of}/{prefix}{end}; help: use a free address of that network"
                )
            }
        }
    }
}

/// Speaks to the task that keeps the addresses. Without it the task ends, and the addresses stay.
#[derive(Debug)]
pub struct Addresses {
    orders: mpsc::UnboundedSender<Order>,
    refused: watch::Receiver<BTreeMap<Ipv4Addr, Refused>>,
}

impl Addresses {
    /// Starts to keep `wanted` in the network namespace of the calling thread; returns when it is so, or when the
    /// interface is not there: after some 200 ms for each 256 addresses that are new, for which other hosts are asked.
    /// What is to be announced goes to `announcements` as they have room, thrice with a second between.
    ///
    /// # Errors
    /// No socket, or the kernel refuses a list or an address.
    pub async fn start(
        wanted: Wanted,
        announcements: mpsc::Sender<Announcement>,
    ) -> Result<Self, Error> {
        let (orders, orders_out) = mpsc::unbounded_channel();
        let (refused_in, refused) = watch::channel(BTreeMap::new());
        let mut keeper = Keeper::open(wanted, announcements, refused_in)?;
        keeper.keep().await?;
        tokio::spawn(keeper.run(orders_out));
        Ok(Self { orders, refused })
    }

    /// The VIPs that are not taken at the moment, and why.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<Ipv4Addr, Refused> {
        self.refused.borrow().clone()
    }

    /// Keeps something else from now on; what the kernel refuses is logged and tried again.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn want(&self, wanted: Wanted) -> Result<(), Error> {
        self.orders
            .send(Order::Want(wanted))
            .map_err(|_| Error::Stopped)
    }

    /// Takes all of the agent's addresses away and ends; gives those that were removed.
    ///
    /// # Errors
    /// The kernel refuses, or the task has stopped.
    pub async fn withdraw(self) -> Result<BTreeSet<Ipv4Addr>, Error> {
        let (reply, answer) = oneshot::channel();
        self.orders
            .send(Order::Withdraw(reply))
            .map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}

/// Removes the agent's addresses from these interfaces, for when no agent runs; gives those that were removed. An
/// interface that is not there has none.
///
/// # Errors
/// No socket, or the kernel refuses.
pub async fn remove(interfaces: &[String]) -> Result<BTreeSet<Ipv4Addr>, Error> {
    let requests = Requests::open()?;
    let links = requests.links().await?;
    let addresses = requests.addresses().await?;
    let steps = interfaces.iter().flat_map(|interface| {
        steps::steps(
            &Wanted {
                interface: interface.clone(),
                ..Wanted::default()
            },
            &links,
            &addresses,
        )
    });
    let mut removed = BTreeSet::new();
    for step in steps {
        if keeper::take(&requests, &step).await? {
            removed.insert(step.row().address);
        }
    }
    Ok(removed)
}
