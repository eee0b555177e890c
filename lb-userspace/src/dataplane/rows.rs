//! Rows of the control maps as the words they are made of.

use std::array;

use lb_common::abi::{BackendRow, ConfigRow, InterfaceRow, ServiceRow};

/// Words of a row of `SERVICES`.
pub(super) const SERVICE_WORDS: usize = size_of::<ServiceRow>() / 8;
/// Words of a row of `BACKENDS`.
pub(super) const BACKEND_WORDS: usize = size_of::<BackendRow>() / 8;
/// Words of a row of `INTERFACES`.
pub(super) const INTERFACE_WORDS: usize = size_of::<InterfaceRow>() / 8;
/// Words of the configuration row.
pub(super) const CONFIG_WORDS: usize = size_of::<ConfigRow>() / 8;

/// Puts fields one after the other, as they stand in memory.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn put<const BYTES: usize>(mut self, bytes: [u8; BYTES]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn put_words(mut self, words: &[u64]) -> Self {
        self.0
            .extend(words.iter().copied().flat_map(u64::to_ne_bytes));
        self
    }

    fn words<const WORDS: usize>(self) -> [u64; WORDS] {
        let mut reader = Reader(self.0.into_iter());
        array::from_fn(|_| u64::from_ne_bytes(reader.take()))
    }
}

/// Takes fields one after the other, as they stand in memory.
struct Reader<I>(I);

fn reader<const WORDS: usize>(words: [u64; WORDS]) -> Reader<impl Iterator<Item = u8>> {
    Reader(words.into_iter().flat_map(u64::to_ne_bytes))
}

impl<I: Iterator<Item = u8>> Reader<I> {
    fn take<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        array::from_fn(|_| self.0.next().unwrap_or(0))
    }

    fn take_words<const WORDS: usize>(&mut self) -> [u64; WORDS] {
        array::from_fn(|_| u64::from_ne_bytes(self.take()))
    }
}

pub(super) fn config_words(row: &ConfigRow) -> [u64; CONFIG_WORDS] {
    Writer::default()
        .put(row.layout_version.to_ne_bytes())
        .put(row.ticks_per_second.to_ne_bytes())
        .put(row.flags.to_ne_bytes())
        .put(row.interfaces.to_ne_bytes())
        .put(row.flow_seed.to_ne_bytes())
        .put_words(&row.reserved)
        .words()
}

pub(super) fn config_row(words: [u64; CONFIG_WORDS]) -> ConfigRow {
    let mut fields = reader(words);
    ConfigRow {
        layout_version: u32::from_ne_bytes(fields.take()),
        ticks_per_second: u32::from_ne_bytes(fields.take()),
        flags: u32::from_ne_bytes(fields.take()),
        interfaces: u32::from_ne_bytes(fields.take()),
        flow_seed: u64::from_ne_bytes(fields.take()),
        reserved: fields.take_words(),
    }
}

pub(super) fn service_words(row: &ServiceRow) -> [u64; SERVICE_WORDS] {
    Writer::default()
        .put(row.slots.to_ne_bytes())
        .put(row.vip)
        .put(row.port_be)
        .put([row.protocol, row.mode, row.scheduler, row.in_use])
        .put(row.generation.to_ne_bytes())
        .put_words(&row.reserved)
        .words()
}

pub(super) fn service_row(words: [u64; SERVICE_WORDS]) -> ServiceRow {
    let mut fields = reader(words);
    let (slots, vip, port_be) = (
        u64::from_ne_bytes(fields.take()),
        fields.take(),
        fields.take(),
    );
    let [protocol, mode, scheduler, in_use] = fields.take();
    ServiceRow {
        slots,
        vip,
        port_be,
        protocol,
        mode,
        scheduler,
        in_use,
        generation: u16::from_ne_bytes(fields.take()),
        reserved: fields.take_words(),
    }
}

pub(super) fn backend_words(row: &BackendRow) -> [u64; BACKEND_WORDS] {
    Writer::default()
        .put(row.state.to_ne_bytes())
        .put(row.port_be)
        .put(row.padding)
        .put(row.way.to_ne_bytes())
        .put(row.address)
        .words()
}

pub(super) fn backend_row(words: [u64; BACKEND_WORDS]) -> BackendRow {
    let mut fields = reader(words);
    BackendRow {
        state: u32::from_ne_bytes(fields.take()),
        port_be: fields.take(),
        padding: fields.take(),
        way: u64::from_ne_bytes(fields.take()),
        address: fields.take(),
    }
}

pub(super) fn interface_words(row: &InterfaceRow) -> [u64; INTERFACE_WORDS] {
    Writer::default()
        .put(row.mac.to_ne_bytes())
        .put(row.ifindex.to_ne_bytes())
        .put(row.ipv4)
        .put(row.max_frame.to_ne_bytes())
        .put(row.padding.to_ne_bytes())
        .put(row.reserved.to_ne_bytes())
        .words()
}

pub(super) fn interface_row(words: [u64; INTERFACE_WORDS]) -> InterfaceRow {
    let mut fields = reader(words);
    InterfaceRow {
        mac: u64::from_ne_bytes(fields.take()),
        ifindex: u32::from_ne_bytes(fields.take()),
        ipv4: fields.take(),
        max_frame: u32::from_ne_bytes(fields.take()),
        padding: u32::from_ne_bytes(fields.take()),
        reserved: u64::from_ne_bytes(fields.take()),
    }
}

#[cfg(test)]
mod tests {
    use std::{mem, ptr};

    use super::*;

    /// The words of a row as the compiler lays it out.
    fn raw<T: Copy, const WORDS: usize>(row: &T) -> [u64; WORDS] {
        assert_eq!(size_of::<T>(), mem::size_of::<[u64; WORDS]>());
        // SAFETY: the rows are `repr(C)` of plain integers without padding, and as long as the words.
        unsafe { ptr::read_unaligned(ptr::from_ref(row).cast()) }
    }

    #[test]
    fn words_are_the_rows_as_they_stand_in_memory() {
        let address = std::array::from_fn(|byte| u8::try_from(byte).unwrap() + 1);
        let config = ConfigRow {
            layout_version: 1,
            ticks_per_second: 2,
            flags: 3,
            interfaces: 4,
            flow_seed: 5,
            reserved: [6, 7, 8, 9, 10],
        };
        assert_eq!(config_words(&config), raw(&config));
        assert_eq!(config_row(raw(&config)), config);
        let service = ServiceRow {
            slots: 0x0102_0304_0506_0708,
            vip: address,
            port_be: [20, 21],
            protocol: 22,
            mode: 23,
            scheduler: 24,
            in_use: 25,
            generation: 0x2627,
            reserved: [28, 29, 30, 31],
        };
        assert_eq!(service_words(&service), raw(&service));
        assert_eq!(service_row(raw(&service)), service);
        let backend = BackendRow {
            state: 99,
            port_be: [1, 2],
            padding: [3, 4],
            way: 0x0506_0708_090a_0b0c,
            address,
        };
        assert_eq!(backend_words(&backend), raw(&backend));
        assert_eq!(backend_row(raw(&backend)), backend);
        let interface = InterfaceRow {
            mac: 5,
            ifindex: 6,
            ipv4: [1, 2, 3, 4],
            max_frame: 7,
            padding: 8,
            reserved: 9,
        };
        assert_eq!(interface_words(&interface), raw(&interface));
        assert_eq!(interface_row(raw(&interface)), interface);
    }
}
