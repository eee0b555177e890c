//! Raw packet memory of the harness' programs: frames of one length, whole.

use core::ffi::c_void;

use aya_ebpf::programs::XdpContext;

use crate::plan::{FRAME, Kind};

/// The [`FRAME`] bytes of a frame that the verifier knows to be there.
pub(crate) struct Frame(*mut c_void);

/// Copies words of a kind's frame to their places.
macro_rules! copy {
    ($frame:ident, $from:ident, $($word:ty, $at:literal;)*) => {
        $($frame.put::<$word, $at>(unsafe { $from.byte_add($at).cast::<$word>().read_volatile() });)*
    };
}

impl Frame {
    #[inline(always)]
    pub(crate) fn of(context: &XdpContext) -> Option<Self> {
        let start = context.data();
        (start + FRAME <= context.data_end()).then_some(Self(start as *mut c_void))
    }

    /// Writes the whole frame, in stores as wide as may be. None ends inside a field: a load that spans two stores
    /// waits for both to reach the cache, a dozen cycles that no packet from a NIC costs.
    #[inline(always)]
    pub(crate) fn write(&self, kind: &Kind, flow: u64) {
        let from = kind.frame.as_ptr();
        // SAFETY: all below the 64 bytes of `frame`; the row is as little aligned as the packet, see `put`.
        copy!(self, from,
            u32, 0; u16, 4; u64, 6; // MAC addresses, EtherType
            u64, 14; u32, 22; // IPv4 up to its addresses
            u64, 38; u64, 46; u32, 54; u16, 58; // transport behind its ports, padding
        );
        self.put::<u64, 26>(kind.addresses(flow));
        self.put::<u32, 34>(kind.ports(flow));
    }

    #[inline(always)]
    fn put<T, const AT: usize>(&self, word: T) {
        const { assert!(AT + size_of::<T>() <= FRAME) };
        // SAFETY: `of` tested all bytes. The place may be less aligned than the word, which the instruction allows and
        // the kernel checks; `write_unaligned` would become single bytes.
        unsafe { self.0.byte_add(AT).cast::<T>().write_volatile(word) }
    }

    #[inline(always)]
    pub(crate) fn get<T, const AT: usize>(&self) -> T {
        const { assert!(AT + size_of::<T>() <= FRAME) };
        // SAFETY: as in `put`.
        unsafe { self.0.byte_add(AT).cast::<T>().read_volatile() }
    }
}
