//! What is connected to an interface, by netlink: the other end of a veth, the ports of a bridge.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// What an interface is, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) name: String,
    pub(super) mtu: u32,
    /// Index of the interface that it is tied to; of a veth the other end.
    pub(super) tied_to: Option<u32>,
    /// That one is in another network namespace.
    pub(super) elsewhere: bool,
    /// Index of the bridge or bond that it is a port of.
    master: Option<u32>,
    /// An XDP program runs there, by the driver.
    pub(super) has_program: bool,
}

/// The interface of that index.
pub(super) fn link(ifindex: u32) -> io::Result<LinkFacts> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    ask(request, NLM_F_REQUEST)?
        .pop()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Names of the ports of a bridge or bond.
pub(super) fn ports(master: u32) -> io::Result<Vec<String>> {
    let links = ask(LinkMessage::default(), NLM_F_REQUEST | NLM_F_DUMP)?;
    let ports = links
        .into_iter()
        .filter(|link| link.master == Some(master))
        .map(|link| link.name);
    Ok(ports.collect())
}

fn ask(request: LinkMessage, flags: u16) -> io::Result<Vec<LinkFacts>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(request)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut links = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
            // Messages begin at multiples of four.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    links.push(facts(&link));
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(links),
                _ => return Err(io::Error::other("the kernel's answer is none")),
            }
        }
        if flags & NLM_F_DUMP != NLM_F_DUMP {
            return Ok(links);
        }
    }
}

fn facts(link: &LinkMessage) -> LinkFacts {
    let mut facts = LinkFacts::default();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => facts.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
            LinkAttribute::Link(ifindex) => facts.tied_to = Some(*ifindex),
            LinkAttribute::LinkNetNsId(_) => facts.elsewhere = true,
            LinkAttribute::Controller(ifindex) => facts.master = Some(*ifindex),
            LinkAttribute::Xdp(xdp) => {
                facts.has_program = xdp.iter().any(|attribute| {
                    matches!(
                        attribute,
                        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple)
                    )
                });
            }
            _ => {}
        }
    }
    facts
}
