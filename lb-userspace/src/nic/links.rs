//! What is connected to an interface, by netlink: the other end of a veth, the ports of a bridge.

use std::io;

use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

use super::get_link;

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
    get_link::one(ifindex).map(|link| facts(&link))
}

/// Names of the ports of a bridge or bond.
pub(super) fn ports(master: u32) -> io::Result<Vec<String>> {
    let links = get_link::all()?;
    let links = links.iter().map(facts);
    let ports = links.filter(|link| link.master == Some(master));
    Ok(ports.map(|link| link.name).collect())
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
