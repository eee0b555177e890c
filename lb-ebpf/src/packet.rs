//! Raw packet memory: the only file with pointers into a frame.
//!
//! The verifier accepts a read of `N` bytes at `data + offset` once `data + offset + N <= data_end` was tested on the
//! very pointer that is then used, and a bounded `offset`; so a window keeps that pointer and takes constant offsets.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_common::{
    abi::word::Way,
    packet::{PacketView, Window},
};

/// The frame a program runs on.
pub(crate) struct Frame {
    context: XdpContext,
}

impl Frame {
    #[inline(always)]
    pub(crate) const fn new(context: XdpContext) -> Self {
        Self { context }
    }

    /// For the log.
    #[inline(always)]
    pub(crate) const fn context(&self) -> &XdpContext {
        &self.context
    }

    /// Kernel index of the interface that received the frame.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel's field has 32 bits"
    )]
    pub(crate) fn ifindex(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    /// Moves the frame's start: below 0 makes room in front. Windows taken before are void.
    #[inline(always)]
    pub(crate) fn adjust_head(&self, delta: i32) -> Result<(), ()> {
        // SAFETY: the context is the one the kernel called the program with.
        match unsafe { bpf_xdp_adjust_head(self.context.as_ptr().cast(), delta) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// Moves the frame's end. Windows taken before are void.
    #[inline(always)]
    pub(crate) fn adjust_tail(&self, delta: i32) -> Result<(), ()> {
        // SAFETY: the context is the one the kernel called the program with.
        match unsafe { bpf_xdp_adjust_tail(self.context.as_ptr().cast(), delta) } {
            0 => Ok(()),
            _ => Err(()),
        }
    }
}

/// `N` bytes of the frame that the verifier knows to be there.
#[derive(Clone, Copy)]
pub(crate) struct FrameWindow<const N: usize>(*mut c_void);

macro_rules! access {
    ($get:ident, $put:ident, $word:ty) => {
        /// Writes a word in native order.
        #[inline(always)]
        pub(crate) fn $put<const AT: usize>(self, value: $word) {
            const { assert!(AT + size_of::<$word>() <= N) };
            // SAFETY: `window` tested all `N` bytes against `data_end`. The pointer may be less aligned than the word,
            // which the instruction allows and the kernel checks; `write_unaligned` would become single bytes.
            unsafe { self.0.byte_add(AT).cast::<$word>().write_volatile(value) }
        }

        #[inline(always)]
        fn $get<const AT: usize>(self) -> $word {
            const { assert!(AT + size_of::<$word>() <= N) };
            // SAFETY: as for writing.
            unsafe { self.0.byte_add(AT).cast::<$word>().read_volatile() }
        }
    };
}

impl<const N: usize> FrameWindow<N> {
    access!(get_u8, put_u8, u8);
    access!(get_u16, put_u16, u16);
    access!(get_u32, put_u32, u32);
    access!(get_u64, put_u64, u64);

    /// The `M` bytes from `AT` on.
    #[inline(always)]
    pub(crate) fn part<const AT: usize, const M: usize>(self) -> FrameWindow<M> {
        const { assert!(AT + M <= N) };
        // SAFETY: within the `N` bytes.
        FrameWindow(unsafe { self.0.byte_add(AT) })
    }

    /// Writes destination and source MAC address, each in the low 48 bits of a word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "written in two parts")]
    pub(crate) fn put_macs(self, to: u64, from: u64) {
        self.put_u64::<0>(to & Way::MAC | from << 48);
        self.put_u32::<8>((from >> 16) as u32);
    }
}

impl<const N: usize> Window<N> for FrameWindow<N> {
    #[inline(always)]
    fn u8<const AT: usize>(self) -> u8 {
        self.get_u8::<AT>()
    }

    #[inline(always)]
    fn u16<const AT: usize>(self) -> u16 {
        self.get_u16::<AT>()
    }

    #[inline(always)]
    fn u32<const AT: usize>(self) -> u32 {
        self.get_u32::<AT>()
    }

    #[inline(always)]
    fn u64<const AT: usize>(self) -> u64 {
        self.get_u64::<AT>()
    }
}

impl PacketView for Frame {
    type Window<const N: usize> = FrameWindow<N>;

    #[inline(always)]
    fn length(&self) -> usize {
        self.context.data_end() - self.context.data()
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<FrameWindow<N>> {
        let start = self.context.data() + (offset & 0x7f);
        (start + N <= self.context.data_end()).then_some(FrameWindow(start as *mut c_void))
    }
}
