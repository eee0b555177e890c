//! ICMP (RFC 792), and the packet that an error message quotes.

use std::net::SocketAddrV4;

use super::checksum::ones_complement_sum;
use super::ipv4::Ipv4;
use super::reader::{Malformed, Reader};

/// An ICMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type, see the constants.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum where it is not the right one.
    pub checksum: Option<u16>,
    /// The four bytes whose meaning depends on the type: identifier and sequence number of an echo, the next hop's MTU.
    pub rest: [u8; 4],
    /// An echo's data, or the quoted packet of an error.
    pub payload: Vec<u8>,
}

/// What an ICMP error says about the packet that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The quoted IPv4 header; its payload is left out.
    pub header: Ipv4,
    /// Quoted source address and port.
    pub source: SocketAddrV4,
    /// Quoted destination address and port.
    pub destination: SocketAddrV4,
}

impl Icmp {
    /// Type of an echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Type of an unreachable destination.
    pub const UNREACHABLE: u8 = 3;
    /// Type of an echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Type of a TTL that ran out.
    pub const TIME_EXCEEDED: u8 = 11;

    /// A message of this type with code 0 and the right checksum.
    #[must_use]
    pub fn new(kind: u8, rest: [u8; 4], payload: &[u8]) -> Self {
        Self {
            kind,
            code: 0,
            checksum: None,
            rest,
            payload: payload.to_vec(),
        }
    }

    /// What the message quotes.
    ///
    /// # Errors
    /// Where the quoted header or its ports are not all there.
    pub fn quote(&self) -> Result<Quote, Malformed> {
        let mut reader = Reader::new(&self.payload);
        let header = Ipv4::parse_header(&mut reader)?;
        let source = SocketAddrV4::new(header.source, reader.u16("quoted source port")?);
        let destination =
            SocketAddrV4::new(header.destination, reader.u16("quoted destination port")?);
        Ok(Quote {
            header,
            source,
            destination,
        })
    }

    /// The message's bytes, from the type on.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest);
        bytes.extend(&self.payload);
        let checksum = self
            .checksum
            .unwrap_or_else(|| !ones_complement_sum(0, &bytes));
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    pub(super) fn parse(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let right = ones_complement_sum(0, reader.rest()) == 0xffff;
        let kind = reader.u8("ICMP type")?;
        let code = reader.u8("ICMP code")?;
        let checksum = reader.u16("ICMP checksum")?;
        let rest = reader.array("ICMP rest of header")?;
        let payload = reader.rest().to_vec();
        Ok(Self {
            kind,
            code,
            checksum: (!right).then_some(checksum),
            rest,
            payload,
        })
    }
}
