//! What runs on an interface, by netlink: a link says where it is attached, but not how.

use std::io;

use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

use crate::nic::get_link;

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// How it is attached.
    pub mode: InForceMode,
    /// Its id; of several the native one's.
    pub program: u32,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForceMode {
    /// By the driver.
    Native,
    /// By the kernel's generic hook.
    Generic,
    /// By the network card, or in more than one way.
    Other,
}

/// The XDP program that runs on an interface; `None` where there is none.
///
/// # Errors
/// There is no such interface, or the kernel refuses to say.
pub(super) fn in_force(ifindex: u32) -> io::Result<Option<InForce>> {
    get_link::one(ifindex).map(|link| of_link(&link))
}

fn of_link(link: &LinkMessage) -> Option<InForce> {
    let attributes = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(attributes) => Some(attributes),
            _ => None,
        })?;
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(InForceMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(InForceMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware | XdpAttached::Multiple) => {
            Some(InForceMode::Other)
        }
        _ => None,
    })?;
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) => Some(*id),
        _ => None,
    });
    Some(InForce {
        mode,
        program: program.unwrap_or(0),
    })
}
