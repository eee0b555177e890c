//! TCP (RFC 9293) and UDP (RFC 768).

use std::net::Ipv4Addr;
use std::ops::BitOr;

use super::checksum::{ones_complement_sum, pseudo_header_sum};
use super::icmp::Icmp;
use super::ipv4::{Ipv4, low_half};
use super::reader::{Malformed, Reader};

/// What an IPv4 packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, protocol 6.
    Tcp(Tcp),
    /// UDP, protocol 17.
    Udp(Udp),
    /// ICMP, protocol 1.
    Icmp(Icmp),
    /// Another protocol, a fragment after the first, or a header cut short; uninterpreted.
    Other {
        /// The number in the IP header.
        protocol: u8,
        /// All bytes after the IP header.
        bytes: Vec<u8>,
    },
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Header length in 32-bit words where it is not what the options make it.
    pub header_words: Option<u8>,
    /// Flags.
    pub flags: TcpFlags,
    /// Window, unscaled.
    pub window: u16,
    /// Checksum where it is not the right one.
    pub checksum: Option<u16>,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
}

/// The flags of a TCP segment, to be joined with `|`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length where it is not the real one.
    pub length: Option<u16>,
    /// Checksum.
    pub checksum: UdpChecksum,
    /// Data.
    pub payload: Vec<u8>,
}

/// The three things a UDP checksum can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksum {
    /// As it has to be.
    Right,
    /// Zero: the sender computed none, and nobody on the way may make one up.
    Absent,
    /// This value, which is wrong.
    Wrong(u16),
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Transport {
    /// The number that the IP header gives.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match self {
            Self::Tcp(_) => TCP,
            Self::Udp(_) => UDP,
            Self::Icmp(_) => ICMP,
            Self::Other { protocol, .. } => *protocol,
        }
    }

    pub(super) fn bytes(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        match self {
            Self::Tcp(segment) => segment.bytes(source, destination),
            Self::Udp(datagram) => datagram.bytes(source, destination),
            Self::Icmp(message) => message.to_bytes(),
            Self::Other { bytes, .. } => bytes.clone(),
        }
    }

    /// Reads what follows the IP header `ip`; a header cut short stays uninterpreted.
    pub(super) fn parse_inside(&self, bytes: &[u8], ip: &Ipv4) -> Result<Self, Malformed> {
        let protocol = self.protocol();
        let reader = Reader::new(bytes);
        Ok(match protocol {
            TCP if ip.fragment_offset == 0 && bytes.len() >= TCP_HEADER => {
                Self::Tcp(Tcp::parse(reader, ip)?)
            }
            UDP if ip.fragment_offset == 0 && bytes.len() >= UDP_HEADER => {
                Self::Udp(Udp::parse(reader, ip)?)
            }
            ICMP if ip.fragment_offset == 0 && bytes.len() >= UDP_HEADER => {
                Self::Icmp(Icmp::parse(reader)?)
            }
            _ => Self::Other {
                protocol,
                bytes: bytes.to_vec(),
            },
        })
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match self {
            Self::Tcp(segment) => {
                faults.extend(
                    segment
                        .checksum
                        .map(|sum| format!("TCP checksum {sum:#06x} is wrong")),
                );
                faults.extend(
                    segment
                        .header_words
                        .map(|words| format!("TCP header of {words} words")),
                );
            }
            Self::Udp(datagram) => {
                if let UdpChecksum::Wrong(sum) = datagram.checksum {
                    faults.push(format!("UDP checksum {sum:#06x} is wrong"));
                }
                faults.extend(
                    datagram
                        .length
                        .map(|length| format!("UDP length {length} is wrong")),
                );
            }
            Self::Icmp(message) => {
                faults.extend(
                    message
                        .checksum
                        .map(|sum| format!("ICMP checksum {sum:#06x} is wrong")),
                );
            }
            Self::Other { .. } => {}
        }
        faults
    }
}

impl Tcp {
    fn bytes(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let words = self
            .header_words
            .map_or((TCP_HEADER + self.options.len()) / 4, usize::from);
        let mut bytes = Vec::with_capacity(TCP_HEADER + self.options.len() + self.payload.len());
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        bytes.extend([(low_half(words) << 4).to_be_bytes()[1], self.flags.0]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        let pseudo = pseudo_header_sum(source, destination, TCP, low_half(bytes.len()));
        let checksum = self
            .checksum
            .unwrap_or_else(|| !ones_complement_sum(pseudo, &bytes));
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn parse(mut reader: Reader<'_>, ip: &Ipv4) -> Result<Self, Malformed> {
        let all = reader.rest();
        let source_port = reader.u16("TCP source port")?;
        let destination_port = reader.u16("TCP destination port")?;
        let sequence = reader.u32("TCP sequence number")?;
        let acknowledgement = reader.u32("TCP acknowledgement number")?;
        let words = reader.u8("TCP data offset")? >> 4;
        let flags = TcpFlags(reader.u8("TCP flags")?);
        let window = reader.u16("TCP window")?;
        let checksum = reader.u16("TCP checksum")?;
        let urgent = reader.u16("TCP urgent pointer")?;
        let options_length = (usize::from(words) * 4).checked_sub(TCP_HEADER);
        let options = options_length.and_then(|length| reader.take(length, "TCP options").ok());
        let pseudo = pseudo_header_sum(ip.source, ip.destination, TCP, low_half(all.len()));
        let right = ones_complement_sum(pseudo, all) == 0xffff;
        Ok(Self {
            source_port,
            destination_port,
            sequence,
            acknowledgement,
            header_words: options.is_none().then_some(words),
            flags,
            window,
            checksum: (!right).then_some(checksum),
            urgent,
            options: options.unwrap_or_default().to_vec(),
            payload: reader.rest().to_vec(),
        })
    }
}

impl Udp {
    fn bytes(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let length = self
            .length
            .unwrap_or_else(|| low_half(UDP_HEADER + self.payload.len()));
        let mut bytes = Vec::with_capacity(UDP_HEADER + self.payload.len());
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.payload);
        let checksum = match self.checksum {
            UdpChecksum::Right => {
                let pseudo = pseudo_header_sum(source, destination, UDP, length);
                // Zero would mean "none": a sum of zero is sent as its other form.
                match !ones_complement_sum(pseudo, &bytes) {
                    0 => 0xffff,
                    sum => sum,
                }
            }
            UdpChecksum::Absent => 0,
            UdpChecksum::Wrong(sum) => sum,
        };
        bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn parse(mut reader: Reader<'_>, ip: &Ipv4) -> Result<Self, Malformed> {
        let all = reader.rest();
        let source_port = reader.u16("UDP source port")?;
        let destination_port = reader.u16("UDP destination port")?;
        let length = reader.u16("UDP length")?;
        let checksum = reader.u16("UDP checksum")?;
        let pseudo = pseudo_header_sum(ip.source, ip.destination, UDP, length);
        let checksum = match checksum {
            0 => UdpChecksum::Absent,
            _ if ones_complement_sum(pseudo, all) == 0xffff => UdpChecksum::Right,
            sum => UdpChecksum::Wrong(sum),
        };
        Ok(Self {
            source_port,
            destination_port,
            length: (usize::from(length) != all.len()).then_some(length),
            checksum,
            payload: reader.rest().to_vec(),
        })
    }
}
