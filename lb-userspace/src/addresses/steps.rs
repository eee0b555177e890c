//! What to do so that the addresses are as wanted. Pure.

use super::{PROTOCOL, Wanted};
use crate::neighbours::table::{AddressRow, LinkRow};

/// Length of the prefix of a VIP.
const HOST: u8 = 32;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Add(AddressRow),
    Remove(AddressRow),
}

impl Step {
    pub(super) fn row(&self) -> &AddressRow {
        match self {
            Self::Add(row) | Self::Remove(row) => row,
        }
    }
}

/// The changes, removals first. An address is the agent's where its protocol says so.
///
/// 1. The agent's addresses on the interface that are not wanted go, but for those that are leaving.
/// 2. So do wanted ones of the agent's on other interfaces: the configuration has named another one meanwhile.
/// 3. A wanted address that nobody has configured is added.
pub(super) fn steps(wanted: &Wanted, links: &[LinkRow], addresses: &[AddressRow]) -> Vec<Step> {
    let Some(link) = links.iter().find(|link| link.name == wanted.interface) else {
        return Vec::new();
    };
    let belongs = |row: &AddressRow| row.ifindex == link.ifindex && row.prefix == HOST;
    let ours = addresses.iter().filter(|row| row.protocol == PROTOCOL);
    let astray = ours.filter(|row| {
        if wanted.addresses.contains(&row.address) {
            !belongs(row)
        } else {
            row.ifindex == link.ifindex && !wanted.leaving.contains(&row.address)
        }
    });
    let mut steps: Vec<_> = astray.copied().map(Step::Remove).collect();
    for address in &wanted.addresses {
        let taken = |row: &&AddressRow| {
            row.address == *address && (row.protocol != PROTOCOL || belongs(row))
        };
        if !addresses.iter().any(|row| taken(&row)) {
            let row = AddressRow {
                ifindex: link.ifindex,
                address: *address,
                prefix: HOST,
                protocol: PROTOCOL,
            };
            steps.push(Step::Add(row));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

    fn links() -> [LinkRow; 2] {
        [(2, "eth0"), (3, "eth1")].map(|(ifindex, name)| LinkRow {
            ifindex,
            name: name.to_owned(),
            mac: [2; 6],
            ethernet: true,
            up: true,
            mtu: 1_500,
        })
    }

    fn row(ifindex: u32, address: Ipv4Addr, protocol: u8) -> AddressRow {
        AddressRow {
            ifindex,
            address,
            prefix: 32,
            protocol,
        }
    }

    fn wanted(addresses: &[Ipv4Addr]) -> Wanted {
        Wanted {
            interface: "eth0".to_owned(),
            addresses: addresses.iter().copied().collect(),
            ..Wanted::default()
        }
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_there_stays() {
        let there = [row(2, VIP, PROTOCOL)];
        let add = Step::Add(row(2, OTHER, PROTOCOL));
        assert_eq!(steps(&wanted(&[VIP, OTHER]), &links(), &there), [add]);
        assert_eq!(steps(&wanted(&[VIP]), &links(), &there), []);
    }

    #[test]
    fn an_address_that_is_no_longer_wanted_goes() {
        let there = [row(2, VIP, PROTOCOL), row(2, OTHER, PROTOCOL)];
        assert_eq!(
            steps(&wanted(&[VIP]), &links(), &there),
            [Step::Remove(there[1])]
        );
        assert_eq!(
            steps(&wanted(&[]), &links(), &there),
            there.map(Step::Remove)
        );
    }

    #[test]
    fn an_address_that_is_leaving_stays_and_does_not_come_back() {
        let leaving = Wanted {
            leaving: [VIP].into(),
            ..wanted(&[OTHER])
        };
        let there = [row(2, VIP, PROTOCOL), row(2, OTHER, PROTOCOL)];
        assert_eq!(steps(&leaving, &links(), &there), []);
        assert_eq!(steps(&leaving, &links(), &there[1..]), []);
    }

    #[test]
    fn somebody_elses_address_is_left_alone_wherever_it_is() {
        for there in [
            row(2, VIP, 0),
            row(3, VIP, 3),
            AddressRow {
                prefix: 24,
                ..row(2, VIP, 0)
            },
        ] {
            assert_eq!(steps(&wanted(&[VIP]), &links(), &[there]), []);
            assert_eq!(steps(&wanted(&[]), &links(), &[there]), []);
        }
    }

    #[test]
    fn an_address_moves_with_the_interface_and_those_of_another_instance_stay() {
        let there = [row(3, VIP, PROTOCOL), row(3, OTHER, PROTOCOL)];
        let expected = [Step::Remove(there[0]), Step::Add(row(2, VIP, PROTOCOL))];
        assert_eq!(steps(&wanted(&[VIP]), &links(), &there), expected);
    }

    #[test]
    fn nothing_is_done_while_the_interface_is_not_there() {
        let wanted = Wanted {
            interface: "eth7".to_owned(),
            ..wanted(&[VIP])
        };
        assert_eq!(steps(&wanted, &links(), &[row(3, VIP, PROTOCOL)]), []);
    }
}
