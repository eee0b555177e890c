//! What runs on an interface, by netlink: a link says where it is attached, but not how.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

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
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(request)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(of_link(&link)),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel's answer is none")),
    }
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
