//! Making frames: the constructors of ordinary packets and the methods that change one thing each.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::{
    ETHERTYPE_ARP, ETHERTYPE_IPV6, Frame, Icmp, Ipv4, Mac, Payload, TPID_CUSTOMER, Tcp, TcpFlags,
    Transport, Udp, UdpChecksum, Vlan, unexpected,
};

/// Source MAC address of a frame that does not say otherwise.
pub const DEFAULT_SOURCE: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
/// Destination MAC address of a frame that does not say otherwise.
pub const DEFAULT_DESTINATION: Mac = Mac([0x02, 0, 0, 0, 0, 0x02]);

/// An address and port, as a value or as text, which only a test writes and which panics where it is wrong.
pub trait Endpoint {
    /// The address and port.
    fn endpoint(self) -> SocketAddrV4;
}

impl Endpoint for SocketAddrV4 {
    fn endpoint(self) -> SocketAddrV4 {
        self
    }
}

impl Endpoint for (Ipv4Addr, u16) {
    fn endpoint(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.0, self.1)
    }
}

impl Endpoint for &str {
    fn endpoint(self) -> SocketAddrV4 {
        self.parse()
            .unwrap_or_else(|error| panic!("`{self}` as address and port: {error}"))
    }
}

impl Frame {
    /// A TCP segment with ACK set and no data.
    #[must_use]
    pub fn tcp(source: impl Endpoint, destination: impl Endpoint) -> Self {
        let (source, destination) = (source.endpoint(), destination.endpoint());
        let segment = Tcp {
            source_port: source.port(),
            destination_port: destination.port(),
            sequence: 1_000,
            acknowledgement: 2_000,
            header_words: None,
            flags: TcpFlags::ACK,
            window: 64_240,
            checksum: None,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        };
        Self::ipv4_packet(Ipv4::new(
            *source.ip(),
            *destination.ip(),
            Transport::Tcp(segment),
        ))
    }

    /// A UDP datagram without data.
    #[must_use]
    pub fn udp(source: impl Endpoint, destination: impl Endpoint) -> Self {
        let (source, destination) = (source.endpoint(), destination.endpoint());
        let datagram = Udp {
            source_port: source.port(),
            destination_port: destination.port(),
            length: None,
            checksum: UdpChecksum::Right,
            payload: Vec::new(),
        };
        Self::ipv4_packet(Ipv4::new(
            *source.ip(),
            *destination.ip(),
            Transport::Udp(datagram),
        ))
    }

    /// An ICMP message.
    #[must_use]
    pub fn icmp(source: Ipv4Addr, destination: Ipv4Addr, message: Icmp) -> Self {
        Self::ipv4_packet(Ipv4::new(source, destination, Transport::Icmp(message)))
    }

    /// An ICMP echo request with 8 bytes of data.
    #[must_use]
    pub fn echo_request(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        identifier: u16,
        sequence: u16,
    ) -> Self {
        let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
        Self::icmp(
            source,
            destination,
            Icmp::new(Icmp::ECHO_REQUEST, [a, b, c, d], b"echo/8by"),
        )
    }

    /// Any IPv4 packet between the default MAC addresses.
    #[must_use]
    pub fn ipv4_packet(packet: Ipv4) -> Self {
        Self::carrying(Payload::Ipv4(packet))
    }

    /// A frame of another protocol between the default MAC addresses.
    #[must_use]
    pub fn other(ethertype: u16, bytes: &[u8]) -> Self {
        Self::carrying(Payload::Other {
            ethertype,
            bytes: bytes.to_vec(),
        })
    }

    /// The broadcast "who has `target`, tell `sender`" (RFC 826).
    #[must_use]
    pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        let mut bytes = vec![0, 1, 0x08, 0, 6, 4, 0, 1];
        bytes.extend(DEFAULT_SOURCE.0);
        bytes.extend(sender.octets());
        bytes.extend([0; 6]);
        bytes.extend(target.octets());
        Self::other(ETHERTYPE_ARP, &bytes).destination_mac(Mac([0xff; 6]))
    }

    /// An IPv6 packet (RFC 8200) with this next header and payload, which is not checked.
    #[must_use]
    pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> Self {
        let length = super::ipv4::low_half(payload.len());
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([next_header, 64]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(payload);
        Self::other(ETHERTYPE_IPV6, &bytes)
    }

    fn carrying(payload: Payload) -> Self {
        Self {
            destination: DEFAULT_DESTINATION,
            source: DEFAULT_SOURCE,
            vlans: Vec::new(),
            payload,
            trailer: Vec::new(),
        }
    }

    /// From this MAC address.
    #[must_use]
    pub fn source_mac(self, source: Mac) -> Self {
        Self { source, ..self }
    }

    /// To this MAC address.
    #[must_use]
    pub fn destination_mac(self, destination: Mac) -> Self {
        Self {
            destination,
            ..self
        }
    }

    /// In this VLAN, inside those that were given before.
    #[must_use]
    pub fn vlan(mut self, number: u16) -> Self {
        self.vlans.push(Vlan {
            tpid: TPID_CUSTOMER,
            control: number,
        });
        self
    }

    /// Followed by bytes that belong to no packet.
    #[must_use]
    pub fn trailer(self, bytes: &[u8]) -> Self {
        Self {
            trailer: bytes.to_vec(),
            ..self
        }
    }

    /// With this many hops left.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        self.ip(|packet| packet.ttl = ttl)
    }

    /// As a fragment: offset in units of 8 bytes, and whether more follow.
    #[must_use]
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        self.ip(|packet| {
            packet.dont_fragment = false;
            packet.fragment_offset = offset;
            packet.more_fragments = more;
        })
    }

    /// With these TCP flags and no others.
    #[must_use]
    pub fn flags(self, flags: TcpFlags) -> Self {
        self.segment(|segment| segment.flags = flags)
    }

    /// With this data, whatever the transport.
    #[must_use]
    pub fn payload(self, bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        self.ip(|packet| match &mut packet.payload {
            Transport::Tcp(segment) => segment.payload = bytes,
            Transport::Udp(datagram) => datagram.payload = bytes,
            Transport::Icmp(message) => message.payload = bytes,
            Transport::Other { bytes: all, .. } => *all = bytes,
        })
    }

    /// From this address and port.
    #[must_use]
    pub fn sent_from(self, source: impl Endpoint) -> Self {
        let source = source.endpoint();
        self.ip(|packet| {
            packet.source = *source.ip();
            match &mut packet.payload {
                Transport::Tcp(segment) => segment.source_port = source.port(),
                Transport::Udp(datagram) => datagram.source_port = source.port(),
                other => unexpected("ports", other),
            }
        })
    }

    /// To this address and port.
    #[must_use]
    pub fn sent_to(self, destination: impl Endpoint) -> Self {
        let destination = destination.endpoint();
        self.ip(|packet| {
            packet.destination = *destination.ip();
            match &mut packet.payload {
                Transport::Tcp(segment) => segment.destination_port = destination.port(),
                Transport::Udp(datagram) => datagram.destination_port = destination.port(),
                other => unexpected("ports", other),
            }
        })
    }

    /// With the IPv4 packet changed.
    #[must_use]
    pub fn ip(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        change(self.ipv4_mut());
        self
    }

    /// With the TCP segment changed.
    #[must_use]
    pub fn segment(self, change: impl FnOnce(&mut Tcp)) -> Self {
        self.ip(|packet| match &mut packet.payload {
            Transport::Tcp(segment) => change(segment),
            other => unexpected("a TCP segment", other),
        })
    }

    /// With the UDP datagram changed.
    #[must_use]
    pub fn datagram(self, change: impl FnOnce(&mut Udp)) -> Self {
        self.ip(|packet| match &mut packet.payload {
            Transport::Udp(datagram) => change(datagram),
            other => unexpected("a UDP datagram", other),
        })
    }

    /// With the ICMP message changed.
    #[must_use]
    pub fn message(self, change: impl FnOnce(&mut Icmp)) -> Self {
        self.ip(|packet| match &mut packet.payload {
            Transport::Icmp(message) => change(message),
            other => unexpected("an ICMP message", other),
        })
    }
}
