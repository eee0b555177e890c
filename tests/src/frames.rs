//! Ethernet frames as values: say what differs from an ordinary packet, get bytes; give bytes, get the value back.
//!
//! Fields that follow from others (lengths, checksums) are `Option`s: `None` means "as it has to be", `Some` means
//! "this value, though it is wrong". So a frame built with defaults has correct checksums, [`Frame::parse`] of its
//! bytes gives an equal value, and a frame that comes out of the data plane is intact exactly if nothing in it is
//! `Some` ([`Frame::faults`]). The arithmetic here shares nothing with the code under test.
//!
//! ```
//! use lb_tests::frames::{Frame, TcpFlags};
//!
//! let syn = Frame::tcp("10.1.0.10:40000", "10.1.0.100:80").flags(TcpFlags::SYN).ttl(9);
//! let back = Frame::parse(&syn.bytes()).unwrap();
//! assert_eq!(back, syn);
//! assert_eq!(back.faults(), Vec::<String>::new());
//! ```

mod build;
mod checksum;
mod icmp;
mod ipv4;
mod reader;
mod transport;

use std::fmt;

pub use build::{DEFAULT_DESTINATION, DEFAULT_SOURCE, Endpoint};
pub use checksum::{ones_complement_sum, pseudo_header_sum};
pub use icmp::{Icmp, Quote};
pub use ipv4::Ipv4;
pub use reader::Malformed;
use reader::Reader;
pub use transport::{Tcp, TcpFlags, Transport, Udp, UdpChecksum};

/// `EtherType` of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// `EtherType` of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// `EtherType` of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tag protocol of a customer VLAN (IEEE 802.1Q).
pub const TPID_CUSTOMER: u16 = 0x8100;
/// Tag protocol of a service VLAN (IEEE 802.1ad).
pub const TPID_SERVICE: u16 = 0x88a8;

/// One frame, without preamble and frame check sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination MAC address.
    pub destination: Mac,
    /// Source MAC address.
    pub source: Mac,
    /// VLAN tags, outermost first.
    pub vlans: Vec<Vlan>,
    /// What the frame carries.
    pub payload: Payload,
    /// Bytes after the end that the IP header states, such as Ethernet's padding to 60 bytes.
    pub trailer: Vec<u8>,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An IPv4 packet.
    Ipv4(Ipv4),
    /// Anything else, uninterpreted.
    Other {
        /// `EtherType`, or the length of an IEEE 802.3 frame.
        ethertype: u16,
        /// All bytes that follow.
        bytes: Vec<u8>,
    },
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Tag protocol identifier.
    pub tpid: u16,
    /// Priority, drop-eligible bit and the 12-bit VLAN number.
    pub control: u16,
}

impl Frame {
    /// The frame as it goes over the wire, derived fields filled in.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.destination.0);
        bytes.extend(self.source.0);
        for vlan in &self.vlans {
            bytes.extend(vlan.tpid.to_be_bytes());
            bytes.extend(vlan.control.to_be_bytes());
        }
        match &self.payload {
            Payload::Ipv4(packet) => {
                bytes.extend(ETHERTYPE_IPV4.to_be_bytes());
                bytes.extend(packet.bytes());
            }
            Payload::Other {
                ethertype,
                bytes: rest,
            } => {
                bytes.extend(ethertype.to_be_bytes());
                bytes.extend(rest);
            }
        }
        bytes.extend(&self.trailer);
        bytes
    }

    /// Reads a frame. Wrong checksums and lengths are no error, they are kept as `Some` and told by [`Frame::faults`].
    ///
    /// # Errors
    /// Where a header does not fit into the bytes, with the header and the offset.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let destination = Mac(reader.array("Ethernet destination")?);
        let source = Mac(reader.array("Ethernet source")?);
        let mut vlans = Vec::new();
        let ethertype = loop {
            let ethertype = reader.u16("EtherType")?;
            if ethertype != TPID_CUSTOMER && ethertype != TPID_SERVICE {
                break ethertype;
            }
            vlans.push(Vlan {
                tpid: ethertype,
                control: reader.u16("VLAN tag")?,
            });
        };
        let (payload, trailer) = if ethertype == ETHERTYPE_IPV4 {
            let (packet, trailer) = Ipv4::parse(reader)?;
            (Payload::Ipv4(packet), trailer)
        } else {
            (
                Payload::Other {
                    ethertype,
                    bytes: reader.rest().to_vec(),
                },
                Vec::new(),
            )
        };
        Ok(Self {
            destination,
            source,
            vlans,
            payload,
            trailer,
        })
    }

    /// What is wrong with the derived fields, a sentence each; empty for an intact frame.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        match &self.payload {
            Payload::Ipv4(packet) => packet.faults(),
            Payload::Other { .. } => Vec::new(),
        }
    }

    /// The IPv4 packet inside.
    ///
    /// # Panics
    /// If the frame carries something else.
    #[must_use]
    pub fn ipv4(&self) -> &Ipv4 {
        match &self.payload {
            Payload::Ipv4(packet) => packet,
            other @ Payload::Other { .. } => unexpected("an IPv4 packet", other),
        }
    }

    /// The IPv4 packet inside, to change.
    ///
    /// # Panics
    /// If the frame carries something else.
    pub fn ipv4_mut(&mut self) -> &mut Ipv4 {
        match &mut self.payload {
            Payload::Ipv4(packet) => packet,
            other @ Payload::Other { .. } => unexpected("an IPv4 packet", other),
        }
    }

    /// The TCP segment inside.
    ///
    /// # Panics
    /// If the frame carries something else.
    #[must_use]
    pub fn tcp_segment(&self) -> &Tcp {
        match &self.ipv4().payload {
            Transport::Tcp(segment) => segment,
            other => unexpected("a TCP segment", other),
        }
    }

    /// The UDP datagram inside.
    ///
    /// # Panics
    /// If the frame carries something else.
    #[must_use]
    pub fn udp_datagram(&self) -> &Udp {
        match &self.ipv4().payload {
            Transport::Udp(datagram) => datagram,
            other => unexpected("a UDP datagram", other),
        }
    }

    /// The ICMP message inside.
    ///
    /// # Panics
    /// If the frame carries something else.
    #[must_use]
    pub fn icmp_message(&self) -> &Icmp {
        match &self.ipv4().payload {
            Transport::Icmp(message) => message,
            other => unexpected("an ICMP message", other),
        }
    }
}

/// Stops the test: a frame is not what it was taken for.
fn unexpected(wanted: &str, seen: &dyn fmt::Debug) -> ! {
    panic!("expected {wanted}, found {seen:?}")
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a MAC address");
        let parts = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| wrong())?;
        Ok(Self(parts.try_into().map_err(|_| wrong())?))
    }
}

#[cfg(test)]
mod tests;
