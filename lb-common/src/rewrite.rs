//! The recipe of a rewrite, computed once when a flow is made: the new address and port, and what they add to the checksums.

use crate::{
    abi::{FlowEntry, FlowKey},
    checksum,
};

/// Where a flow's packets go and come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The backend's address.
    pub backend_address: u32,
    /// The backend's port.
    pub backend_port: u16,
    /// Row of `BACKENDS`.
    pub backend: u16,
    /// Its generation.
    pub backend_generation: u16,
    /// Row of `SERVICES`.
    pub service: u32,
    /// [`crate::flow::State`].
    pub state: u8,
    /// Low 32 bits of `jiffies64`.
    pub now: u32,
    /// Where the client's packets come from: [`FlowEntry::ingress_print`].
    pub ingress_print: u64,
    /// The way to the client: [`crate::abi::word::Way`].
    pub way: u64,
}

/// Both entries of a flow in mode `nat`: `key` is the client's 5-tuple, the first entry its own, the second that of the replies.
#[must_use]
#[inline(always)]
pub fn nat(key: &FlowKey, binding: &Binding) -> (FlowEntry, FlowEntry) {
    let forward = entry(
        (key.destination, key.destination_port),
        (binding.backend_address, binding.backend_port),
        (0, binding.ingress_print),
        binding,
    );
    let reverse = entry(
        (binding.backend_address, binding.backend_port),
        (key.destination, key.destination_port),
        (FlowEntry::REVERSE, binding.way),
        binding,
    );
    (forward, reverse)
}

#[inline(always)]
fn entry(
    (old_address, old_port): (u32, u16),
    (address, port): (u32, u16),
    (flags, way): (u8, u64),
    binding: &Binding,
) -> FlowEntry {
    let addresses = checksum::replace_address(old_address, address);
    let ports = checksum::replace(old_port, port);
    FlowEntry {
        address,
        port,
        state: binding.state,
        flags,
        delta_ip: checksum::fold(addresses),
        delta_transport: checksum::fold(addresses + ports),
        last_seen: binding.now,
        backend: binding.backend,
        backend_generation: binding.backend_generation,
        service: binding.service,
        way,
    }
}

/// A TCP checksum after the rewrite.
#[must_use]
#[inline(always)]
pub const fn tcp_checksum(old: u16, delta: u16) -> u16 {
    checksum::apply(old, delta as u32)
}

/// A UDP checksum after the rewrite: 0 means "none" and stays, and a sum of 0 is sent as all ones (RFC 768).
#[must_use]
#[inline(always)]
pub const fn udp_checksum(old: u16, delta: u16) -> u16 {
    if old == 0 {
        return 0;
    }
    match checksum::apply(old, delta as u32) {
        0 => u16::MAX,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, SocketAddrV4};

    use super::*;

    #[test]
    fn udp_without_a_checksum_stays_without() {
        assert_eq!(udp_checksum(0, 0x1234), 0);
        assert_ne!(udp_checksum(0x1234, 0x1234), 0);
        for old in 1..=u16::MAX {
            assert_ne!(udp_checksum(old, 0x00ff), 0);
        }
    }

    #[test]
    fn the_way_back_undoes_the_way_there() {
        let client = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 0x1234);
        let vip = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
        let key = FlowKey::new(client, vip, 6);
        let binding = Binding {
            backend_address: u32::from_ne_bytes([10, 0, 0, 3]),
            backend_port: 8080u16.to_be(),
            backend: 3,
            backend_generation: 1,
            service: 1,
            state: 1,
            now: 0,
            ingress_print: 0,
            way: 0,
        };
        let (forward, reverse) = nat(&key, &binding);
        for sum in [0x0001u16, 0x1234, 0xfffe] {
            let there = tcp_checksum(sum, forward.delta_transport);
            assert_eq!(tcp_checksum(there, reverse.delta_transport), sum);
        }
    }
}
