//! The control tables in the kernel: one memory that the program addresses directly. No lookup and no test for null stands
//! between a packet and a row. An id is taken modulo the table's size, so that the verifier sees it within; none beyond it is ever
//! written.
//!
//! Only the agent writes them, word by word, while packets read: each access is one aligned volatile load.

use core::{cell::UnsafeCell, mem::offset_of, ptr};

use lb_common::abi::{
    BackendRow, ConfigRow, Control, InterfaceRow, ServiceRow, word::BackendState,
};

use crate::maps::row_of;

/// Memory that somebody else writes.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: it is only read, by volatile loads of aligned words.
unsafe impl<T> Sync for Shared<T> {}

/// The loader makes a map of the section, pinned as `CONTROL`; it starts as zeroes.
#[unsafe(link_section = ".bss.control")]
#[unsafe(no_mangle)]
static CONTROL: Shared<Control> = Shared(UnsafeCell::new(Control::EMPTY));

/// A field of a row.
macro_rules! load {
    ($row:expr, $field:ident) => {
        // SAFETY: an aligned field of a row that is always there.
        unsafe { ptr::read_volatile(&raw const (*$row).$field) }
    };
}

/// A row of a table, the size of which is a power of two.
macro_rules! row {
    ($table:ident, $id:expr) => {{
        // SAFETY: the tables are always there.
        row_of(unsafe { &raw mut (*CONTROL.0.get()).$table }, $id).cast_const()
    }};
}

/// A word of the filter.
#[inline(always)]
pub(crate) fn filter(word: u32) -> u64 {
    let word: *const u64 = row!(filter, word);
    // SAFETY: a word of the filter.
    unsafe { ptr::read_volatile(word) }
}

/// Our MAC address, in the low 48 bits, on an interface whose index falls on the place of this one.
#[inline(always)]
pub(crate) fn own_mac(ifindex: u32) -> u64 {
    let mac: *const u64 = row!(own_macs, ifindex);
    // SAFETY: a word of the table.
    unsafe { ptr::read_volatile(mac) }
}

/// The configuration.
#[derive(Clone, Copy)]
pub(crate) struct Config(*const ConfigRow);

/// What may change while the program runs.
#[inline(always)]
pub(crate) fn config() -> Config {
    // SAFETY: the table is always there.
    Config(unsafe { &raw const (*CONTROL.0.get()).config })
}

impl Config {
    #[inline(always)]
    pub(crate) fn ticks_per_second(self) -> u32 {
        load!(self.0, ticks_per_second)
    }

    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        load!(self.0, flags)
    }

    #[inline(always)]
    pub(crate) fn interfaces(self) -> u32 {
        load!(self.0, interfaces)
    }
}

/// How often the keys of services were changed.
#[inline(always)]
pub(crate) fn keys_version() -> u64 {
    load!(CONTROL.0.get(), keys_version)
}

/// A row of the services.
#[derive(Clone, Copy)]
pub(crate) struct Service(*const ServiceRow);

#[inline(always)]
pub(crate) fn service(id: u32) -> Service {
    Service(row!(services, id))
}

impl Service {
    /// The range of slots in force.
    #[inline(always)]
    pub(crate) fn slots(self) -> u64 {
        load!(self.0, slots)
    }
}

/// A row of the backends.
#[derive(Clone, Copy)]
pub(crate) struct Backend(*const BackendRow);

#[inline(always)]
pub(crate) fn backend(id: u16) -> Backend {
    Backend(row!(backends, id.into()))
}

impl Backend {
    /// The state in force.
    #[inline(always)]
    pub(crate) fn state(self) -> BackendState {
        BackendState::unpack(load!(self.0, state))
    }

    /// The generation of its tenant, which is in the upper half of the state.
    #[inline(always)]
    pub(crate) fn generation(self) -> u16 {
        // SAFETY: the upper half of the state.
        unsafe { self.half(offset_of!(BackendRow, state) + 2) }
    }

    /// The way in force, a [`lb_common::abi::word::Way`].
    #[inline(always)]
    pub(crate) fn way(self) -> u64 {
        load!(self.0, way)
    }

    /// The IPv4 address, as in a packet.
    #[inline(always)]
    pub(crate) fn address(self) -> u32 {
        const LAST: usize = offset_of!(BackendRow, address) + 12;
        const { assert!(LAST.is_multiple_of(4)) };
        // SAFETY: the last four bytes of the address.
        unsafe { ptr::read_volatile(self.0.byte_add(LAST).cast()) }
    }

    /// The port, as in a packet.
    #[inline(always)]
    pub(crate) fn port(self) -> u16 {
        // SAFETY: its two bytes.
        unsafe { self.half(offset_of!(BackendRow, port_be)) }
    }

    /// Two bytes of the row, at an even offset.
    ///
    /// # Safety
    /// They are within the row.
    #[inline(always)]
    unsafe fn half(self, offset: usize) -> u16 {
        // SAFETY: the caller's.
        unsafe { ptr::read_volatile(self.0.byte_add(offset).cast()) }
    }
}

/// A row of the interfaces.
#[derive(Clone, Copy)]
pub(crate) struct Interface(*const InterfaceRow);

#[inline(always)]
pub(crate) fn interface(slot: u32) -> Interface {
    Interface(row!(interfaces, slot))
}

impl Interface {
    /// Our MAC address, in the low 48 bits.
    #[inline(always)]
    pub(crate) fn mac(self) -> u64 {
        load!(self.0, mac)
    }

    /// The kernel's index, 0 while the interface is gone.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        load!(self.0, ifindex)
    }

    /// Bytes of the largest frame that may leave.
    #[inline(always)]
    pub(crate) fn max_frame(self) -> u32 {
        load!(self.0, max_frame)
    }

    /// Our IPv4 address, as in a packet; 0 where there is none.
    #[inline(always)]
    pub(crate) fn ipv4(self) -> u32 {
        const { assert!(offset_of!(InterfaceRow, ipv4).is_multiple_of(4)) };
        // SAFETY: four bytes of the row, aligned to as many.
        unsafe { ptr::read_volatile((&raw const (*self.0).ipv4).cast()) }
    }
}
