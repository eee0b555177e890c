//! Reads headers: Ethernet and IPv4 first, because most frames are not ours and need no more, then the transport.
//!
//! A parser never decides: it says what is there and what is wrong with it. One source for kernel and host.

use network_types::{
    eth::{EthHdr, EtherType},
    ip::IpProto,
};

use crate::{
    abi::FlowKey,
    packet::{PacketView, Window},
    verdict::DropReason,
};

/// IPv4 without options, RFC 791 section 3.1.
pub const IPV4_MIN: usize = 20;
/// Ethernet II without tags.
pub const ETHERNET: usize = EthHdr::LEN;

/// What an Ethernet frame carries, as far as it concerns us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// An IPv4 header, sound or not.
    Ipv4(Ipv4),
    /// Anything else: ARP, IPv6, tagged frames, runts.
    Other,
}

/// An IPv4 header. Addresses are the packet's bytes read in native order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Bytes of the header, 0 to 60; at least 20 where `sound`.
    pub header_length: usize,
    /// Bytes of header and payload.
    pub total_length: usize,
    /// More fragments follow, or this is not the first.
    pub fragment: Fragment,
    /// The lengths agree with each other and with the frame.
    pub sound: bool,
}

/// Whether a datagram is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Whole.
    No,
    /// The first one, which carries the transport header.
    First,
    /// Another one: no ports.
    Later,
}

/// What follows the IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP or UDP.
    Ports(Ports),
    /// ICMP: type and code.
    Icmp(u8, u8),
    /// A fragment without a transport header, or a protocol that no service speaks.
    Other,
}

/// Ports, as the packet's bytes read in native order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Flags of a TCP segment; 0 for UDP.
    pub flags: TcpFlags,
}

/// The flag byte of a TCP header, RFC 9293 section 3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 1 << 1;
    /// Reset.
    pub const RST: u8 = 1 << 2;
    /// Acknowledgement field is significant.
    pub const ACK: u8 = 1 << 4;

    /// Whether any of `mask` is set.
    #[must_use]
    #[inline(always)]
    pub const fn any(self, mask: u8) -> bool {
        self.0 & mask != 0
    }

    /// The first segment of a connection: SYN without ACK.
    #[must_use]
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Combinations that no stack sends: SYN with FIN or RST, or none of SYN, RST, ACK and FIN.
    #[must_use]
    #[inline(always)]
    pub const fn nonsense(self) -> bool {
        (self.any(Self::SYN) && self.any(Self::FIN | Self::RST))
            || !self.any(Self::SYN | Self::RST | Self::ACK | Self::FIN)
    }
}

const VERSION_4: u8 = 4;
const ETHER_IPV4: u16 = EtherType::Ipv4 as u16;
/// IP protocol number of TCP.
pub const TCP: u8 = IpProto::Tcp as u8;
/// IP protocol number of UDP.
pub const UDP: u8 = IpProto::Udp as u8;
const ICMP: u8 = IpProto::Icmp as u8;
const FRAGMENT_OFFSET: u16 = u16::to_be(0x1fff);
const MORE_FRAGMENTS: u16 = u16::to_be(0x2000);

/// Bytes of a plain packet's headers, and the least that such a frame has: see [`plain_protocol`].
pub const PLAIN: usize = ETHERNET + IPV4_MIN + TCP_MIN;
/// TCP without options, RFC 9293 section 3.1.
pub const TCP_MIN: usize = 20;
/// A UDP header, RFC 768.
pub const UDP_MIN: usize = 8;

/// Whether a frame carries IPv4.
#[inline(always)]
pub fn is_ipv4<const N: usize>(window: impl Window<N>) -> bool {
    window.u16::<12>() == ETHER_IPV4
}

/// Whether a frame is addressed to a MAC address, which is in the low 48 bits.
#[inline(always)]
pub fn is_for<const N: usize>(window: impl Window<N>, mac: u64) -> bool {
    (window.u64::<0>() ^ mac) << 16 == 0
}

/// The protocol of a packet whose ports are where they nearly always are: TCP or UDP behind IPv4 without options, whole.
/// [`network`] and [`transport`] tell of all others.
#[inline(always)]
pub fn plain_protocol(window: impl Window<PLAIN>) -> Option<u8> {
    /// Version 4, five words.
    const VERSION_AND_LENGTH: u8 = 0x45;
    let protocol = window.u8::<23>();
    let plain = window.u8::<14>() == VERSION_AND_LENGTH
        && window.u16::<20>() & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0
        && (protocol == TCP || protocol == UDP);
    plain.then_some(protocol)
}

/// Whether such a packet, in a frame of that length, is sound, has hops left, and neither opens nor ends a connection.
#[inline(always)]
pub fn goes_on(window: impl Window<PLAIN>, protocol: u8, length: usize) -> bool {
    const TCP_WITHOUT_MORE: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;
    let total_length = usize::from(u16::from_be(window.u16::<16>()));
    if ETHERNET + total_length > length || window.u8::<22>() <= 1 {
        return false;
    }
    if protocol == TCP {
        let header_length = usize::from(window.u8::<46>() >> 4) * 4;
        window.u8::<47>() & TCP_WITHOUT_MORE == TcpFlags::ACK
            && header_length >= TCP_MIN
            && IPV4_MIN + header_length <= total_length
    } else {
        let datagram = usize::from(u16::from_be(window.u16::<38>()));
        datagram >= UDP_MIN && IPV4_MIN + datagram <= total_length
    }
}

/// The key of a plain packet.
#[inline(always)]
pub fn plain_key(window: impl Window<PLAIN>, protocol: u8) -> FlowKey {
    FlowKey {
        addresses: window.u64::<26>(),
        rest: u64::from(window.u32::<34>()) | u64::from(protocol) << 32,
    }
}

/// Reads the Ethernet and IPv4 headers.
#[inline(always)]
pub fn network(view: &impl PacketView) -> Network {
    let Some(window) = view.window::<{ ETHERNET + IPV4_MIN }>(0) else {
        return Network::Other;
    };
    let version_and_length = window.u8::<14>();
    if !is_ipv4(window) || version_and_length >> 4 != VERSION_4 {
        return Network::Other;
    }
    let header_length = usize::from(version_and_length & 0xf) * 4;
    let total_length = usize::from(u16::from_be(window.u16::<16>()));
    let fragment_word = window.u16::<20>();
    Network::Ipv4(Ipv4 {
        source: window.u32::<26>(),
        destination: window.u32::<30>(),
        protocol: window.u8::<23>(),
        ttl: window.u8::<22>(),
        header_length,
        total_length,
        fragment: if fragment_word & FRAGMENT_OFFSET != 0 {
            Fragment::Later
        } else if fragment_word & MORE_FRAGMENTS != 0 {
            Fragment::First
        } else {
            Fragment::No
        },
        sound: header_length >= IPV4_MIN
            && total_length >= header_length
            && ETHERNET + total_length <= view.length(),
    })
}

/// Reads the transport header behind a sound IPv4 header.
///
/// # Errors
/// The reason to drop the packet under, should it turn out to be ours.
#[inline(always)]
pub fn transport(view: &impl PacketView, ip: &Ipv4) -> Result<Transport, DropReason> {
    if !ip.sound {
        return Err(DropReason::MalformedIp);
    }
    if matches!(ip.fragment, Fragment::Later) {
        return Ok(Transport::Other);
    }
    let offset = ETHERNET + ip.header_length;
    let length = ip.total_length - ip.header_length;
    match ip.protocol {
        TCP => tcp(view, offset, length),
        UDP => udp(view, offset, length, ip.fragment),
        ICMP => {
            let window = view.window::<8>(offset).filter(|_| length >= 8);
            let window = window.ok_or(DropReason::MalformedIcmp)?;
            Ok(Transport::Icmp(window.u8::<0>(), window.u8::<1>()))
        }
        _ => Ok(Transport::Other),
    }
}

/// The destination port where the header leads to one, as in the packet, be the rest of it sound or not: the fast path goes by those
/// bytes too before it looks at lengths.
#[inline(always)]
pub fn destination_port(view: &impl PacketView, ip: &Ipv4) -> Option<u16> {
    /// Bytes of both ports.
    const PORTS: usize = 4;
    let carries = matches!(ip.protocol, TCP | UDP)
        && ip.header_length >= IPV4_MIN
        && !matches!(ip.fragment, Fragment::Later);
    let ports = view.window::<PORTS>(ETHERNET + ip.header_length);
    ports.filter(|_| carries).map(Window::u16::<2>)
}

#[inline(always)]
fn tcp(view: &impl PacketView, offset: usize, length: usize) -> Result<Transport, DropReason> {
    let window = view
        .window::<TCP_MIN>(offset)
        .ok_or(DropReason::MalformedTcp)?;
    let header_length = usize::from(window.u8::<12>() >> 4) * 4;
    let flags = TcpFlags(window.u8::<13>());
    if header_length < TCP_MIN || header_length > length || flags.nonsense() {
        return Err(DropReason::MalformedTcp);
    }
    Ok(Transport::Ports(Ports {
        source: window.u16::<0>(),
        destination: window.u16::<2>(),
        flags,
    }))
}

#[inline(always)]
fn udp(
    view: &impl PacketView,
    offset: usize,
    length: usize,
    fragment: Fragment,
) -> Result<Transport, DropReason> {
    let window = view
        .window::<UDP_MIN>(offset)
        .ok_or(DropReason::MalformedUdp)?;
    let datagram = usize::from(u16::from_be(window.u16::<4>()));
    let whole = matches!(fragment, Fragment::No);
    if length < UDP_MIN || datagram < UDP_MIN || (whole && datagram > length) {
        return Err(DropReason::MalformedUdp);
    }
    Ok(Transport::Ports(Ports {
        source: window.u16::<0>(),
        destination: window.u16::<2>(),
        flags: TcpFlags(0),
    }))
}

/// A source address that no host can answer to: this network, loopback, multicast and above (RFC 1122 section 3.2.1.3).
#[must_use]
#[inline(always)]
pub const fn is_martian(source: u32) -> bool {
    let first = source.to_ne_bytes()[0];
    first == 0 || first == 127 || first >= 224
}

#[cfg(test)]
mod tests;
