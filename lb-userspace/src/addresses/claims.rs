//! Which addresses must not be taken, because they name no host or another host has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::{Error, PROTOCOL, Refused};
use crate::neighbours::{
    netlink::Requests,
    table::{AddressRow, LinkRow, NeighbourRow, Usability},
};

/// How long an answer may take. A start waits for it, so this is short: a host on the same link answers ARP within a
/// millisecond or two.
const PATIENCE: Duration = Duration::from_millis(200);
/// Addresses that are asked for at once: the kernel's table of neighbours holds 1,024 by default (`gc_thresh3`).
const AT_ONCE: usize = 256;
/// Before an address that another host has is asked for again.
const AGAIN: Duration = Duration::from_secs(10);

/// What is wrong with addresses that are wanted.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Why each is refused, and when it is looked at again.
    refused: BTreeMap<Ipv4Addr, (Refused, Instant)>,
}

impl Claims {
    /// Of the addresses that are wanted and missing, those that may be taken.
    ///
    /// 1. One that is a network or broadcast address of an interface names no host.
    /// 2. Another host may have it: it is asked for by ARP, as RFC 5227 has it, through the kernel's own resolution of
    ///    neighbours, which needs no right to send frames. One request and [`PATIENCE`] instead of that document's
    ///    three in as many seconds, because clients wait for a start.
    ///
    /// # Errors
    /// The kernel refuses to list neighbours.
    pub(super) async fn free(
        &mut self,
        link: &LinkRow,
        missing: &BTreeSet<Ipv4Addr>,
        links: &[LinkRow],
        addresses: &[AddressRow],
        requests: &Requests,
    ) -> Result<BTreeSet<Ipv4Addr>, Error> {
        let now = Instant::now();
        self.refused.retain(|address, _| missing.contains(address));
        let mut asked = BTreeSet::new();
        for address in missing {
            if self.refused.get(address).is_some_and(|(_, at)| *at > now) {
                continue;
            }
            match names_no_host(*address, addresses) {
                Some(refused) => self.refuse(*address, refused, now),
                None => drop(asked.insert(*address)),
            }
        }
        let holders = if link.ethernet {
            probe(link, &asked, links, requests).await?
        } else {
            BTreeMap::new()
        };
        for address in &asked {
            match holders.get(address) {
                Some(mac) => self.refuse(*address, Refused::Held { mac: *mac }, Instant::now()),
                None => drop(self.refused.remove(address)),
            }
        }
        asked.retain(|address| !holders.contains_key(address));
        Ok(asked)
    }

    /// Why each address is refused at the moment.
    pub(super) fn refused(&self) -> BTreeMap<Ipv4Addr, Refused> {
        let refused = self.refused.iter();
        refused
            .map(|(address, (refused, _))| (*address, *refused))
            .collect()
    }

    /// When one of them is to be looked at again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.refused.values().map(|(_, at)| *at).min()
    }

    fn refuse(&mut self, address: Ipv4Addr, refused: Refused, now: Instant) {
        let before = self.refused.insert(address, (refused, now + AGAIN));
        if before.is_none_or(|(before, _)| before != refused) {
            tracing::error!(event = "vip_refused", %address, "the VIP {address} is not taken: {refused}");
        }
    }
}

/// Whether it is the first or the last address of the network of an interface.
fn names_no_host(address: Ipv4Addr, addresses: &[AddressRow]) -> Option<Refused> {
    // The kernel has neither for the two addresses of a point-to-point network (RFC 3021), nor for one alone.
    let networks = addresses
        .iter()
        .filter(|row| row.protocol != PROTOCOL && row.prefix <= 30);
    networks.into_iter().find_map(|row| {
        let host_part = u32::MAX.checked_shr(row.prefix.into()).unwrap_or(0);
        let first = row.address.to_bits() & !host_part;
        let is_broadcast = address.to_bits() == first | host_part;
        (is_broadcast || address.to_bits() == first).then_some(Refused::NoHost {
            is_broadcast,
            of: row.address,
            prefix: row.prefix,
        })
    })
}

/// Asks who has these addresses; gives the MAC addresses of other hosts that answered.
async fn probe(
    link: &LinkRow,
    addresses: &BTreeSet<Ipv4Addr>,
    links: &[LinkRow],
    requests: &Requests,
) -> Result<BTreeMap<Ipv4Addr, [u8; 6]>, Error> {
    let addresses: Vec<_> = addresses.iter().copied().collect();
    let key = |address: &Ipv4Addr| (link.ifindex, IpAddr::V4(*address));
    let mut holders = BTreeMap::new();
    for some in addresses.chunks(AT_ONCE) {
        // What the kernel knew before may be long gone, and it would not ask anew.
        for address in some {
            requests.forget(key(address)).await;
            if let Err(error) = requests.probe(key(address)).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%address, error, "can't ask whether another host has the VIP");
            }
        }
        tokio::time::sleep(PATIENCE).await;
        let rows = requests.neighbours().await?;
        holders.extend(some.iter().filter_map(|address| {
            let row = rows.iter().find(|row| row.key == key(address))?;
            Some((*address, holder(row, links)?))
        }));
        for address in some {
            requests.forget(key(address)).await;
        }
    }
    Ok(holders)
}

/// Who answered, where that is not this host on another interface.
fn holder(row: &NeighbourRow, links: &[LinkRow]) -> Option<[u8; 6]> {
    let mac = row.mac.filter(|_| row.usability != Usability::None)?;
    (!links.iter().any(|link| link.mac == mac)).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(address: [u8; 4], prefix: u8, protocol: u8) -> AddressRow {
        AddressRow {
            ifindex: 2,
            address: address.into(),
            prefix,
            protocol,
        }
    }

    #[test]
    fn the_ends_of_a_network_name_no_host() {
        let words = |address: [u8; 4], row| {
            names_no_host(address.into(), &[row]).map(|refused| refused.to_string())
        };
        let interface = row([192, 0, 2, 1], 24, 0);
        assert_eq!(
            words([192, 0, 2, 255], interface).as_deref(),
            Some(
                "it is the broadcast address of the network of 192.0.2.1/24; help: use a free address of that network"
            )
        );
        assert_eq!(
            words([192, 0, 2, 0], interface).as_deref(),
            Some(
                "it is the address of the network of 192.0.2.1/24 itself; help: use a free address of that network"
            )
        );
        for free in [
            [192, 0, 2, 254],
            [192, 0, 2, 2],
            [192, 0, 3, 255],
            [192, 0, 1, 0],
        ] {
            assert_eq!(words(free, interface), None, "{free:?}");
        }
        assert!(words([192, 0, 2, 7], row([192, 0, 2, 5], 30, 0)).is_some());
        for alone in [row([192, 0, 2, 6], 31, 0), row([192, 0, 2, 7], 32, 0)] {
            assert_eq!(words([192, 0, 2, 7], alone), None);
        }
        assert_eq!(words([10, 0, 0, 255], row([10, 0, 0, 1], 8, 0)), None);
        assert!(words([10, 255, 255, 255], row([10, 0, 0, 1], 8, 0)).is_some());
    }

    #[test]
    fn an_answer_of_this_host_is_none() {
        let links = [LinkRow {
            ifindex: 3,
            name: "eth1".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            ethernet: true,
            up: true,
            mtu: 1_500,
        }];
        let answer = |last, usability| NeighbourRow {
            key: (2, IpAddr::from([192, 0, 2, 10])),
            mac: Some([2, 0, 0, 0, 0, last]),
            usability,
        };
        let other = answer(9, Usability::Fresh);
        assert_eq!(holder(&other, &links), other.mac);
        assert_eq!(holder(&answer(9, Usability::None), &links), None);
        assert_eq!(holder(&answer(1, Usability::Fresh), &links), None);
    }
}
