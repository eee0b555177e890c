//! How a parser sees a packet: bounded windows on its bytes, in the kernel and on the host alike.

/// `N` bytes of a packet that are known to be there.
///
/// Offsets are constants, checked against `N` when the code is compiled. Words come in native order, as they lie in memory.
pub trait Window<const N: usize>: Copy {
    /// The byte at `AT`.
    fn u8<const AT: usize>(self) -> u8;
    /// The two bytes at `AT`.
    fn u16<const AT: usize>(self) -> u16;
    /// The four bytes at `AT`.
    fn u32<const AT: usize>(self) -> u32;
    /// The eight bytes at `AT`.
    fn u64<const AT: usize>(self) -> u64;
}

/// A packet's bytes, from the start of the Ethernet header.
pub trait PacketView {
    /// A checked stretch of the packet.
    type Window<const N: usize>: Window<N>;

    /// Length of the frame in bytes.
    fn length(&self) -> usize;

    /// The `N` bytes from `offset` on; `None` where the frame is shorter. `offset` is at most 127.
    fn window<const N: usize>(&self, offset: usize) -> Option<Self::Window<N>>;
}

impl<const N: usize> Window<N> for &[u8; N] {
    fn u8<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        self[AT]
    }

    fn u16<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        u16::from_ne_bytes([self[AT], self[AT + 1]])
    }

    fn u32<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= N) };
        u32::from_ne_bytes([self[AT], self[AT + 1], self[AT + 2], self[AT + 3]])
    }

    fn u64<const AT: usize>(self) -> u64 {
        const { assert!(AT + 8 <= N) };
        u64::from_ne_bytes(core::array::from_fn(|byte| self[AT + byte]))
    }
}

impl<'a> PacketView for &'a [u8] {
    type Window<const N: usize> = &'a [u8; N];

    fn length(&self) -> usize {
        self.len()
    }

    fn window<const N: usize>(&self, offset: usize) -> Option<&'a [u8; N]> {
        self.get(offset..)?.first_chunk()
    }
}
