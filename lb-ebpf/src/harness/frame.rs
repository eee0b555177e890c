//! Raw packet memory of the harness' programs: frames of one length, whole.

use core::ffi::c_void;

use aya_ebpf::programs::XdpContext;

use crate::plan::{FRAME, Kind};

/// The [`FRAME`] bytes of a frame that the verifier knows to be there.
pub(crate) struct Frame(*mut c_void);

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
        // MAC addresses and EtherType.
        self.copy::<u32, 0>(kind);
        self.copy::<u16, 4>(kind);
        self.copy::<u64, 6>(kind);
        // IPv4 up to its addresses.
        self.copy::<u64, 14>(kind);
        self.copy::<u32, 22>(kind);
        self.put::<u64, 26>(kind.addresses(flow));
        self.put::<u32, 34>(kind.ports(flow));
        // Transport behind its ports, and padding.
        self.copy::<u64, 38>(kind);
        self.copy::<u64, 46>(kind);
        self.copy::<u32, 54>(kind);
        self.copy::<u16, 58>(kind);
    }

    #[inline(always)]
    fn copy<T, const AT: usize>(&self, kind: &Kind) {
        const { assert!(AT + size_of::<T>() <= FRAME) };
        let from = kind.frame.as_ptr().cast::<c_void>();
        // SAFETY: within `frame`, by the assertion; as to alignment, see `put`.
        self.put::<T, AT>(unsafe { from.byte_add(AT).cast::<T>().read_volatile() });
    }

    /// Makes the checksums of a UDP datagram right, for hosts that look at them. `kind`'s are right for addresses and
    /// ports of zero, so that what was put there is added (RFC 1624, with an old value of zero).
    #[inline(always)]
    pub(crate) fn seal_udp(&self, kind: &Kind, flow: u64) {
        let addresses = kind.addresses(flow);
        let addresses = (addresses & 0xffff)
            + (addresses >> 16 & 0xffff)
            + (addresses >> 32 & 0xffff)
            + (addresses >> 48);
        let ports = u64::from(kind.ports(flow));
        let ports = (ports & 0xffff) + (ports >> 16);
        self.put::<u16, 24>(add(self.get::<u16, 24>(), addresses));
        self.put::<u16, 40>(add(self.get::<u16, 40>(), addresses + ports));
    }

    /// Sends the frame to who sent it.
    #[inline(always)]
    pub(crate) fn swap_macs(&self) {
        let (to_head, to_tail) = (self.get::<u32, 0>(), self.get::<u16, 4>());
        let (from_head, from_tail) = (self.get::<u32, 6>(), self.get::<u16, 10>());
        self.put::<u32, 0>(from_head);
        self.put::<u16, 4>(from_tail);
        self.put::<u32, 6>(to_head);
        self.put::<u16, 10>(to_tail);
    }

    #[inline(always)]
    pub(crate) fn put<T, const AT: usize>(&self, word: T) {
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

/// A checksum with more summed up in it; `more` is a sum of few 16-bit words.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
const fn add(checksum: u16, more: u64) -> u16 {
    let sum = !checksum as u64 + more;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
