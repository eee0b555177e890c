//! The kernel's answers to "what is this interface", by netlink, asked and awaited in place: for what must be known now,
//! outside the agent's event loop.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The interface of that index.
///
/// # Errors
/// There is none (`ENODEV`), or the kernel refuses to say.
pub(crate) fn one(ifindex: u32) -> io::Result<LinkMessage> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    exchange(request, NLM_F_REQUEST)?
        .pop()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Every interface of the network namespace.
pub(super) fn all() -> io::Result<Vec<LinkMessage>> {
    exchange(LinkMessage::default(), NLM_F_REQUEST | NLM_F_DUMP)
}

fn exchange(request: LinkMessage, flags: u16) -> io::Result<Vec<LinkMessage>> {
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
                    links.push(link);
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
