//! Stage "ours?": sends foreign frames on their way after one or two array reads, then reads the transport header.

use lb_common::{
    abi::{FlowKey, ServiceKey},
    filter, parse,
    parse::{Fragment, Ipv4, Network, TcpFlags, Transport},
    verdict::{DropReason, Verdict},
};

use crate::{answer, control, packet::Frame, service};

/// A TCP or UDP packet that may belong to a service.
pub(crate) struct Packet {
    /// Its 5-tuple.
    pub(crate) key: FlowKey,
    /// TCP flags; zero for UDP.
    pub(crate) flags: TcpFlags,
    /// Bytes of the IPv4 header.
    pub(crate) header_length: u8,
    /// The first fragment of several.
    pub(crate) fragment: bool,
}

impl Packet {
    /// Whether it begins a flow, where there is none yet.
    #[inline(always)]
    pub(crate) const fn opens(&self) -> bool {
        self.key.protocol() == parse::UDP || self.flags.opens()
    }
}

/// Passes a frame whose destination can't be a VIP and whose source can't be a backend.
#[inline(always)]
pub(crate) fn check(frame: &Frame) -> Result<Ipv4, Verdict> {
    match parse::network(frame) {
        Network::Ipv4(ip) if may_be_ours(ip.destination) || may_be_ours(ip.source) => Ok(ip),
        _ => Err(Verdict::Pass),
    }
}

#[inline(always)]
fn may_be_ours(address: u32) -> bool {
    has(filter::place(address))
}

/// Whether a TCP or UDP packet may belong to a service, or be a backend's reply.
#[inline(always)]
pub(crate) fn may_be_served(key: &FlowKey) -> bool {
    let (address, port) = key.destination_endpoint();
    if has(filter::place_of_endpoint(address, port)) {
        return true;
    }
    let (address, port) = key.source_endpoint();
    has(filter::place_of_endpoint(address, port))
}

#[inline(always)]
fn has((word, bit): (u32, u64)) -> bool {
    control::filter(word) & bit != 0
}

/// Reads the transport header. What has no ports ends here: echo requests to a VIP are answered, and what is
/// malformed or can't be followed drops, if it is addressed to a service, or to a VIP where its port can't be told.
#[inline(always)]
pub(crate) fn transport(frame: &Frame, ip: &Ipv4) -> Result<Packet, Verdict> {
    match parse::transport(frame, ip) {
        Ok(Transport::Ports(ports)) => Ok(Packet {
            key: FlowKey::from_words(
                ip.source,
                ip.destination,
                (ports.source, ports.destination),
                ip.protocol,
            ),
            flags: ports.flags,
            #[expect(clippy::cast_possible_truncation, reason = "at most 60")]
            header_length: ip.header_length as u8,
            fragment: matches!(ip.fragment, Fragment::First),
        }),
        Ok(Transport::Icmp(kind, _)) => Err(answer::icmp(frame, kind)),
        Ok(Transport::Other) if matches!(ip.fragment, Fragment::Later) => Err(drop_if_served(
            ip.destination,
            (ServiceKey::NO_PORT, ip.protocol),
            DropReason::Fragment,
        )),
        Ok(Transport::Other) => Err(Verdict::Pass),
        Err(reason) => {
            let port = match parse::destination_port(frame, ip) {
                // A port that no service has, though the markers of VIPs are kept under it.
                Some(0) => return Err(Verdict::Pass),
                Some(port) => port.to_ne_bytes(),
                None => ServiceKey::NO_PORT,
            };
            Err(drop_if_served(ip.destination, (port, ip.protocol), reason))
        }
    }
}

/// Drops a packet to a service, or without a port to a VIP that serves its protocol; any other is not ours.
#[inline(never)]
fn drop_if_served(
    destination: u32,
    (port, protocol): ([u8; 2], u8),
    reason: DropReason,
) -> Verdict {
    let key = ServiceKey::new(service::mapped(destination), port, protocol);
    if service::has_key(&key) {
        Verdict::Drop(reason)
    } else {
        Verdict::Pass
    }
}
