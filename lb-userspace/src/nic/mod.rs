//! What an interface's driver is and counts, and what follows for XDP on it.
//!
//! [`Nic`] is read from the kernel; [`refusal`], [`notices`] and [`unseen`] say what an operator should know of it, and
//! [`losses`] which of its counters mean lost packets. They are pure. Nothing here changes an interface.

mod advice;
mod ethtool;
pub(crate) mod get_link;
mod links;
pub mod losses;

use std::{collections::BTreeMap, fs, io};

pub use advice::{Attachment, notices, refusal, unseen};

use ethtool::Ethtool;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Kernel name.
    pub name: String,
    /// Name of the driver; empty where it does not say.
    pub driver: String,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// The NIC or its host merges received frames: `rx-gro-hw` of ethtool(8).
    pub gro_hw: Feature,
    /// The driver does: `lro`.
    pub lro: Feature,
    /// Its queues, where the driver counts them in pairs.
    pub channels: Option<Channels>,
    /// Queues that the kernel's stack receives from and sends to.
    pub queues: Option<Queues>,
    /// The other end, where it is a veth.
    pub peer: Option<Peer>,
    /// Names of its ports, where it is a bridge.
    pub ports: Vec<String>,
}

/// What a driver's answer to native mode may depend on and an operator may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    mtu: u32,
    peer_mtu: Option<u32>,
    gro_hw: Feature,
    lro: Feature,
    channels: Option<Channels>,
    queues: Option<Queues>,
}

impl Nic {
    /// As they are.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        let peer_mtu = match self.peer {
            Some(Peer::Here { mtu, .. }) => Some(mtu),
            Some(Peer::Elsewhere) | None => None,
        };
        Conditions {
            mtu: self.mtu,
            peer_mtu,
            gro_hw: self.gro_hw,
            lro: self.lro,
            channels: self.channels,
            queues: self.queues,
        }
    }
}

/// A feature as ethtool(8) shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    /// In force.
    pub on: bool,
    /// Nobody can change it from here.
    pub fixed: bool,
}

/// Pairs of queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// In use, those for XDP alone among them.
    pub combined: u32,
    /// There are.
    pub most: u32,
}

/// Queues of each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Received from.
    pub receive: u32,
    /// Sent to.
    pub transmit: u32,
}

/// The other end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// In the agent's network namespace.
    Here {
        /// Kernel name.
        name: String,
        /// Bytes of the largest IP packet.
        mtu: u32,
        /// An XDP program runs there, by the driver.
        has_program: bool,
        /// Received frames may be merged: `gro` of ethtool(8).
        gro: bool,
        /// It leaves the checksums of what it sends to the NIC that is not there: `tx` of ethtool(8).
        tx_checksum: bool,
    },
    /// In another, where nothing of it can be seen.
    Elsewhere,
}

/// Reads an interface, in the network namespace of the calling thread. What the driver does not say is left at its
/// default.
///
/// # Errors
/// There is no such interface.
pub fn read(name: &str, ifindex: u32) -> io::Result<Nic> {
    let link = links::link(ifindex)?;
    let ethtool = Ethtool::of(name)?;
    let driver = ethtool.driver().unwrap_or_default();
    let features = ethtool.features().unwrap_or_default();
    let peer = match (driver.as_str(), link.tied_to) {
        ("veth", _) if link.elsewhere => Some(Peer::Elsewhere),
        ("veth", Some(tied_to)) => peer(tied_to).ok(),
        _ => None,
    };
    let ports = if driver == "bridge" {
        links::ports(ifindex)?
    } else {
        Vec::new()
    };
    Ok(Nic {
        name: name.to_owned(),
        mtu: link.mtu,
        gro_hw: feature(&features, "rx-gro-hw"),
        lro: feature(&features, "rx-lro"),
        channels: ethtool.channels().ok(),
        queues: queues(name, ifindex).ok(),
        peer,
        ports,
        driver,
    })
}

/// The driver's counters that [`losses::is_told`] wants; none where it has none.
///
/// # Errors
/// There is no such interface, or its queues have changed meanwhile.
pub fn counters(name: &str) -> io::Result<BTreeMap<String, u64>> {
    match Ethtool::of(name)?.statistics() {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(BTreeMap::new()),
        counters => Ok(counters?
            .into_iter()
            .filter(|(name, _)| losses::is_told(name))
            .collect()),
    }
}

fn feature(features: &[(String, Feature)], name: &str) -> Feature {
    let found = features.iter().find(|(known, _)| known == name);
    found.map_or_else(Feature::default, |(_, feature)| *feature)
}

fn peer(ifindex: u32) -> io::Result<Peer> {
    let link = links::link(ifindex)?;
    let features = Ethtool::of(&link.name)?.features()?;
    Ok(Peer::Here {
        mtu: link.mtu,
        has_program: link.has_program,
        gro: feature(&features, "rx-gro").on,
        tx_checksum: feature(&features, "tx-checksum-ip-generic").on,
        name: link.name,
    })
}

/// Queues in use, by sysfs, which shows the network namespace of whoever mounted it: not found where that is another.
fn queues(name: &str, ifindex: u32) -> io::Result<Queues> {
    let directory = format!("/sys/class/net/{name}");
    let shown = fs::read_to_string(format!("{directory}/ifindex"))?;
    if shown.trim().parse() != Ok(ifindex) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let mut queues = Queues::default();
    for entry in fs::read_dir(format!("{directory}/queues"))? {
        match entry?.file_name().to_string_lossy().split_once('-') {
            Some(("rx", _)) => queues.receive += 1,
            Some(("tx", _)) => queues.transmit += 1,
            _ => {}
        }
    }
    Ok(queues)
}

#[cfg(test)]
mod tests;
