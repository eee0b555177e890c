//! The frame of a gratuitous ARP.

use std::net::Ipv4Addr;

use super::FRAME;

/// An ARP announcement as RFC 5227, section 2.3, has it: a request by broadcast in which sender and target are the
/// address itself. Neighbours that know the address take its new MAC from it.
pub(super) fn announcement(address: Ipv4Addr, mac: [u8; 6]) -> [u8; FRAME] {
    const BROADCAST: [u8; 6] = [0xff; 6];
    const ARP: [u8; 2] = [0x08, 0x06];
    /// Ethernet, IPv4, lengths of both addresses, request.
    const REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 1];
    let own = address.octets();
    let parts: [&[u8]; 8] = [&BROADCAST, &mac, &ARP, &REQUEST, &mac, &own, &[0; 6], &own];
    let mut bytes = parts.into_iter().flatten().copied();
    std::array::from_fn(|_| bytes.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_a_request_for_the_address_itself() {
        let frame = announcement(Ipv4Addr::new(192, 0, 2, 10), [2, 0, 0, 0, 0, 7]);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // request
            2, 0, 0, 0, 0, 7, 192, 0, 2, 10, // sender
            0, 0, 0, 0, 0, 0, 192, 0, 2, 10, // target
        ];
        assert_eq!(frame, expected);
    }
}
