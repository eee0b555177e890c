//! What the maps should hold, by names and addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use lb_common::abi::{Mode, Protocol, Scheduler};

/// Everything that the data plane should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The host routes IPv4.
    pub host_forwards: bool,
    /// Ticks of `jiffies` a second.
    pub ticks_per_second: u32,
    /// Secret of the flow table's hash, which the next start needs to find the flows.
    pub flow_seed: u64,
    /// By name; those of the configuration, present or not.
    pub interfaces: BTreeMap<String, Interface>,
    /// By address and protocol.
    pub services: BTreeMap<ServiceAddress, Service>,
    /// The backends of each pool that may take new flows, in the order of their slots.
    pub pools: BTreeMap<String, Vec<SocketAddr>>,
    /// Every backend of a service, whether it may take new flows or not.
    pub backends: BTreeSet<SocketAddr>,
    /// Ways to the addresses of backends, those that were removed and still hold flows among them.
    pub hops: BTreeMap<IpAddr, Hop>,
}

/// An interface of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Kernel index; 0 while it is gone.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its first IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Bytes of the largest IP packet; 0 where that is not known.
    pub mtu: u32,
}

/// What names a service on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// VIP and port.
    pub address: SocketAddr,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl Desired {
    /// The backends that may take new flows of a service.
    #[must_use]
    pub fn rotation(&self, service: &Service) -> &[SocketAddr] {
        self.pools.get(&service.pool).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(formatter, "{}/{protocol}", self.address)
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// How packets reach a backend.
    pub mode: Mode,
    /// How a new flow finds its backend.
    pub scheduler: Scheduler,
    /// Name of a pool; services with the same pool and scheduler share their slots.
    pub pool: String,
}

/// Names a neighbour on an interface, the next hop of a way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HopKey {
    /// Kernel name.
    pub interface: String,
    /// The gateway, or the backend itself where it is on-link.
    pub address: IpAddr,
}

impl fmt::Display for HopKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on {}", self.address, self.interface)
    }
}

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Through this neighbour, which has this MAC address.
    Known {
        /// The neighbour.
        key: HopKey,
        /// Its MAC address.
        mac: [u8; 6],
    },
    /// Not known at the moment; what is in force stays.
    Keep {
        /// The neighbour, where the route is known.
        key: Option<HopKey>,
    },
    /// There is none.
    Unreachable,
}

impl Hop {
    /// The neighbour that the way leads through, where the route is known.
    #[must_use]
    pub fn neighbour(&self) -> Option<&HopKey> {
        match self {
            Self::Known { key, .. } | Self::Keep { key: Some(key) } => Some(key),
            Self::Keep { key: None } | Self::Unreachable => None,
        }
    }
}
