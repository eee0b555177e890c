//! The IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use super::checksum::ones_complement_sum;
use super::reader::{Malformed, Reader};
use super::transport::Transport;

/// An IPv4 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Version, 4 unless a test wants it wrong.
    pub version: u8,
    /// Header length in 32-bit words where it is not what the options make it.
    pub header_words: Option<u8>,
    /// DSCP and ECN.
    pub type_of_service: u8,
    /// Total length where it is not the real one.
    pub total_length: Option<u16>,
    /// Number that the fragments of a datagram share.
    pub identification: u16,
    /// The reserved bit of the flags.
    pub evil: bool,
    /// Must not be fragmented.
    pub dont_fragment: bool,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Offset of this fragment in units of 8 bytes.
    pub fragment_offset: u16,
    /// Hops left.
    pub ttl: u8,
    /// Header checksum where it is not the right one.
    pub checksum: Option<u16>,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// What the packet carries.
    pub payload: Transport,
}

/// Length of the header without options.
const HEADER: usize = 20;

impl Ipv4 {
    /// A packet with the usual header: TTL 64, don't fragment, no options.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, payload: Transport) -> Self {
        Self {
            version: 4,
            header_words: None,
            type_of_service: 0,
            total_length: None,
            identification: 0x1234,
            evil: false,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            checksum: None,
            source,
            destination,
            options: Vec::new(),
            payload,
        }
    }

    /// The packet's bytes, from the version on.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let payload = self.payload.bytes(self.source, self.destination);
        let header_length = HEADER + self.options.len();
        let words = self
            .header_words
            .unwrap_or_else(|| low_byte(header_length / 4));
        let total = self
            .total_length
            .unwrap_or_else(|| low_half(header_length + payload.len()));
        let flags = u16::from(self.evil) << 15
            | u16::from(self.dont_fragment) << 14
            | u16::from(self.more_fragments) << 13
            | self.fragment_offset & 0x1fff;

        let mut bytes = vec![self.version << 4 | words & 0x0f, self.type_of_service];
        bytes.extend(total.to_be_bytes());
        bytes.extend(self.identification.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend([self.ttl, self.payload.protocol(), 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        let checksum = self
            .checksum
            .unwrap_or_else(|| !ones_complement_sum(0, &bytes));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Reads a packet from the version on, as a raw socket gives it.
    ///
    /// # Errors
    /// Where a header does not fit into the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::parse(Reader::new(bytes)).map(|(packet, _)| packet)
    }

    /// Reads a packet and the bytes after its end.
    pub(super) fn parse(mut reader: Reader<'_>) -> Result<(Self, Vec<u8>), Malformed> {
        let available = reader.rest();
        let mut packet = Self::parse_header(&mut reader)?;
        let header_length = HEADER + packet.options.len();
        let stated = packet.total_length.map_or(available.len(), usize::from);
        let end = if (header_length..=available.len()).contains(&stated) {
            // A length that can be followed is right, whatever Ethernet put behind it.
            packet.total_length = None;
            stated
        } else {
            available.len()
        };
        let inside = reader.take(end - header_length, "IPv4 payload")?;
        packet.payload = packet.payload.parse_inside(inside, &packet)?;
        Ok((packet, reader.rest().to_vec()))
    }

    /// Reads the header alone; the payload is left as its protocol without bytes, the total length as stated.
    pub(super) fn parse_header(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.rest();
        let first = reader.u8("IPv4 version")?;
        let words = first & 0x0f;
        let type_of_service = reader.u8("IPv4 type of service")?;
        let total_length = reader.u16("IPv4 total length")?;
        let identification = reader.u16("IPv4 identification")?;
        let flags = reader.u16("IPv4 fragment offset")?;
        let ttl = reader.u8("IPv4 TTL")?;
        let protocol = reader.u8("IPv4 protocol")?;
        let checksum = reader.u16("IPv4 checksum")?;
        let source = Ipv4Addr::from(reader.u32("IPv4 source")?);
        let destination = Ipv4Addr::from(reader.u32("IPv4 destination")?);
        let stated_header = usize::from(words) * 4;
        let options = reader.take(stated_header.saturating_sub(HEADER), "IPv4 options")?;
        let header = &start[..HEADER + options.len()];
        let right = ones_complement_sum(0, header) == 0xffff;
        Ok(Self {
            version: first >> 4,
            header_words: (stated_header < HEADER).then_some(words),
            type_of_service,
            total_length: Some(total_length),
            identification,
            evil: flags & 0x8000 != 0,
            dont_fragment: flags & 0x4000 != 0,
            more_fragments: flags & 0x2000 != 0,
            fragment_offset: flags & 0x1fff,
            ttl,
            checksum: (!right).then_some(checksum),
            source,
            destination,
            options: options.to_vec(),
            payload: Transport::Other {
                protocol,
                bytes: Vec::new(),
            },
        })
    }

    /// Whether this is a part of a larger datagram.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(checksum) = self.checksum {
            let right = Self {
                checksum: None,
                ..self.clone()
            };
            let right = right.bytes();
            faults.push(format!(
                "IPv4 checksum {checksum:#06x}, right is {:#04x}{:02x}",
                right[10], right[11]
            ));
        }
        if let Some(length) = self.total_length {
            faults.push(format!("IPv4 total length {length} does not fit the frame"));
        }
        if let Some(words) = self.header_words {
            faults.push(format!("IPv4 header of {words} words"));
        }
        if self.version != 4 {
            faults.push(format!("IPv4 with version {}", self.version));
        }
        if !self.is_fragment() {
            faults.extend(self.payload.faults());
        }
        faults
    }
}

fn low_byte(value: usize) -> u8 {
    u8::try_from(value & 0xff).unwrap_or(u8::MAX)
}

/// Lengths beyond 16 bits wrap, as a field of the header would.
pub(super) fn low_half(value: usize) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or(u16::MAX)
}
