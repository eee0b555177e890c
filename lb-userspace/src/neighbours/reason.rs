//! Why there is no known way to an address, in words.

use std::{fmt, net::IpAddr};

use crate::plan::HopKey;

/// Why there is no known way to an address; displayed, a sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The address belongs to this host.
    Local(IpAddr),
    /// The kernel knows no route, or one that forbids.
    NoRoute {
        /// The destination.
        address: IpAddr,
        /// What the kernel said, in words.
        answer: &'static str,
    },
    /// The route leads through an interface that is not of the configuration.
    OtherInterface {
        /// The destination.
        address: IpAddr,
        /// Kernel name.
        interface: String,
    },
    /// The route is to a group or a whole network.
    NotUnicast(IpAddr),
    /// The interface has no Ethernet addresses.
    NotEthernet {
        /// The destination.
        address: IpAddr,
        /// Kernel name.
        interface: String,
    },
    /// The neighbour has not answered yet, or no longer does.
    Unanswered {
        /// The destination.
        address: IpAddr,
        /// The neighbour that should answer.
        neighbour: HopKey,
    },
    /// The kernel has not said yet how it reaches the address.
    NotAsked(IpAddr),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(address) => write!(
                formatter,
                "{address} is an address of this host, which XDP can't forward to; help: name another server"
            ),
            Self::NoRoute { address, answer } => {
                write!(
                    formatter,
                    "there is no route to {address}: {answer}; help: see `ip route get {address}`"
                )
            }
            Self::OtherInterface { address, interface } => write!(
                formatter,
                "{address} is routed through {interface}, which is not one of [[interface]]; help: add it there or \
                 change the route"
            ),
            Self::NotUnicast(address) => {
                write!(
                    formatter,
                    "{address} is a broadcast or multicast address; help: name one server"
                )
            }
            Self::NotEthernet { address, interface } => write!(
                formatter,
                "{address} is routed through {interface}, which has no Ethernet addresses; help: change the route"
            ),
            Self::Unanswered { address, neighbour } if neighbour.address == *address => {
                write!(
                    formatter,
                    "{address} does not answer ARP on {}",
                    neighbour.interface
                )
            }
            Self::Unanswered { address, neighbour } => write!(
                formatter,
                "the gateway {} on {}, behind which {address} is, does not answer ARP",
                neighbour.address, neighbour.interface
            ),
            Self::NotAsked(address) => write!(
                formatter,
                "the kernel has not said yet how it reaches {address}"
            ),
        }
    }
}
