//! A cursor over received bytes that says which field did not fit.

use std::fmt;

/// A header that does not fit into the bytes there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The field that was to be read.
    pub field: &'static str,
    /// Offset from the start of the frame.
    pub offset: usize,
    /// Length of the frame.
    pub length: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            offset,
            length,
        } = self;
        write!(f, "no room for the {field} at byte {offset} of {length}")
    }
}

impl std::error::Error for Malformed {}

#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// All that has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    pub(super) fn take(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], Malformed> {
        let malformed = Malformed {
            field,
            offset: self.offset,
            length: self.bytes.len(),
        };
        let taken = self.rest().get(..count).ok_or(malformed)?;
        self.offset += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }
}
