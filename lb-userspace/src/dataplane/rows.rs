//! Rows of the control maps as the words they are made of.

use lb_common::abi::{BackendRow, ConfigRow, InterfaceRow, NextHopRow, ServiceRow};

/// Words of a row of `SERVICES`.
pub(super) const SERVICE_WORDS: usize = size_of::<ServiceRow>() / 8;
/// Words of a row of `BACKENDS`.
pub(super) const BACKEND_WORDS: usize = size_of::<BackendRow>() / 8;
/// Words of a row of `NEXT_HOPS`.
pub(super) const NEXT_HOP_WORDS: usize = size_of::<NextHopRow>() / 8;
/// Words of a row of `INTERFACES`.
pub(super) const INTERFACE_WORDS: usize = size_of::<InterfaceRow>() / 8;
/// Words of `CONFIG`.
pub(super) const CONFIG_WORDS: usize = size_of::<ConfigRow>() / 8;

/// Joins two halves as they stand in memory.
fn join(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// Takes a word apart as it stands in memory.
fn split(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}

fn address_words(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

fn address_of(words: [u64; 2]) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
        (words[0].to_ne_bytes(), words[1].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

pub(super) fn config_words(row: &ConfigRow) -> [u64; CONFIG_WORDS] {
    let [a, b, c, d, e] = row.reserved;
    let head = join(row.layout_version, row.ticks_per_second);
    [
        head,
        join(row.flags, row.interfaces),
        row.flow_seed,
        a,
        b,
        c,
        d,
        e,
    ]
}

pub(super) fn config_row(words: [u64; CONFIG_WORDS]) -> ConfigRow {
    let [head, tail, flow_seed, reserved @ ..] = words;
    let ((layout_version, ticks_per_second), (flags, interfaces)) = (split(head), split(tail));
    ConfigRow {
        layout_version,
        ticks_per_second,
        flags,
        interfaces,
        flow_seed,
        reserved,
    }
}

pub(super) fn service_words(row: &ServiceRow) -> [u64; SERVICE_WORDS] {
    let [vip_head, vip_tail] = address_words(row.vip);
    let ([a, b], [c, d]) = (row.port_be, row.generation.to_ne_bytes());
    let identity = u64::from_ne_bytes([
        a,
        b,
        row.protocol,
        row.mode,
        row.scheduler,
        row.in_use,
        c,
        d,
    ]);
    let [e, f, g, h] = row.reserved;
    [row.slots, vip_head, vip_tail, identity, e, f, g, h]
}

pub(super) fn service_row(words: [u64; SERVICE_WORDS]) -> ServiceRow {
    let [slots, vip_head, vip_tail, identity, reserved @ ..] = words;
    let [a, b, protocol, mode, scheduler, in_use, c, d] = identity.to_ne_bytes();
    let (port_be, generation) = ([a, b], u16::from_ne_bytes([c, d]));
    let vip = address_of([vip_head, vip_tail]);
    ServiceRow {
        slots,
        vip,
        port_be,
        protocol,
        mode,
        scheduler,
        in_use,
        generation,
        reserved,
    }
}

pub(super) fn backend_words(row: &BackendRow) -> [u64; BACKEND_WORDS] {
    let [head, tail] = address_words(row.address);
    let ([a, b], [c, d, e, f, g, h]) = (row.port_be, row.padding);
    [
        row.state,
        head,
        tail,
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
    ]
}

pub(super) fn backend_row(words: [u64; BACKEND_WORDS]) -> BackendRow {
    let [state, head, tail, port] = words;
    let [a, b, padding @ ..] = port.to_ne_bytes();
    BackendRow {
        state,
        address: address_of([head, tail]),
        port_be: [a, b],
        padding,
    }
}

pub(super) fn next_hop_row(words: [u64; NEXT_HOP_WORDS]) -> NextHopRow {
    let [way, reserved] = words;
    NextHopRow { way, reserved }
}

pub(super) fn interface_words(row: &InterfaceRow) -> [u64; INTERFACE_WORDS] {
    let [a, b] = row.reserved;
    [
        row.mac,
        join(row.ifindex, u32::from_ne_bytes(row.ipv4)),
        a,
        b,
    ]
}

pub(super) fn interface_row(words: [u64; INTERFACE_WORDS]) -> InterfaceRow {
    let [mac, place, reserved @ ..] = words;
    let (ifindex, ipv4) = split(place);
    InterfaceRow {
        mac,
        ifindex,
        ipv4: ipv4.to_ne_bytes(),
        reserved,
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
            address,
            port_be: [1, 2],
            padding: [3, 4, 5, 6, 7, 8],
        };
        assert_eq!(backend_words(&backend), raw(&backend));
        assert_eq!(backend_row(raw(&backend)), backend);
        let hop = NextHopRow {
            way: 7,
            reserved: 8,
        };
        assert_eq!(next_hop_row(raw(&hop)), hop);
        let interface = InterfaceRow {
            mac: 5,
            ifindex: 6,
            ipv4: [1, 2, 3, 4],
            reserved: [7, 8],
        };
        assert_eq!(interface_words(&interface), raw(&interface));
        assert_eq!(interface_row(raw(&interface)), interface);
    }
}
