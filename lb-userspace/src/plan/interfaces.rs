//! Rows of `INTERFACES` and entries of `DEVICES`.

use std::collections::BTreeSet;

use lb_common::abi::{InterfaceRow, InterfaceSlot, MAX_INTERFACES, word::Way};

use super::{Change, Desired, Interface, Refusal, order::Planner};

impl<'a> Planner<'a> {
    /// Gives every interface of the configuration its row and, while it is there, its entry in `DEVICES`.
    ///
    /// An interface keeps its row while it is gone, so that flows find it when it is back. After a start the row is
    /// found by the kernel's index.
    pub(super) fn raise_interfaces(&mut self) {
        let desired: &'a Desired = self.desired;
        for (name, interface) in &desired.interfaces {
            let Some(slot) = self.interface_slot(name, interface) else {
                self.refused.push(Refusal::NoInterfaceSlot(name.clone()));
                continue;
            };
            self.book.interfaces.insert(name.clone(), slot);
            let before = self
                .tables
                .interfaces
                .get(&slot)
                .copied()
                .unwrap_or_default();
            let row = match interface.ifindex {
                0 => InterfaceRow {
                    ifindex: 0,
                    ..before
                },
                ifindex => row_of(interface, ifindex),
            };
            if row != before {
                self.emit(Change::Interface { slot, row });
            }
            let device = (interface.ifindex != 0).then_some(interface.ifindex);
            if self.tables.devices.get(&slot).copied() != device {
                self.emit(Change::Device {
                    slot,
                    ifindex: device,
                });
            }
        }
    }

    /// Takes rows out of use that belong to no interface of the configuration, and clears those that have rested.
    pub(super) fn lower_interfaces(&mut self) {
        let desired: &'a Desired = self.desired;
        let living: BTreeSet<_> = desired
            .interfaces
            .keys()
            .filter_map(|name| self.book.interfaces.get(name).copied())
            .collect();
        let mut retired: BTreeSet<_> = self
            .tables
            .interfaces
            .keys()
            .chain(self.tables.devices.keys())
            .copied()
            .collect();
        retired.retain(|slot| !living.contains(slot));
        for slot in &retired {
            if self.tables.devices.contains_key(slot) {
                self.emit(Change::Device {
                    slot: *slot,
                    ifindex: None,
                });
            }
            let row = self
                .tables
                .interfaces
                .get(slot)
                .copied()
                .unwrap_or_default();
            if row.ifindex != 0 {
                self.emit(Change::Interface {
                    slot: *slot,
                    row: InterfaceRow { ifindex: 0, ..row },
                });
            }
        }
        for slot in self.book.rest_interfaces(&retired, self.now) {
            self.emit(Change::Interface {
                slot,
                row: InterfaceRow::default(),
            });
        }
    }

    fn interface_slot(&self, name: &str, interface: &Interface) -> Option<InterfaceSlot> {
        if let Some(slot) = self.book.interfaces.get(name) {
            return Some(*slot);
        }
        let owned: BTreeSet<_> = self.book.interfaces.values().copied().collect();
        let adopted = self.tables.interfaces.iter().find(|(slot, row)| {
            interface.ifindex != 0 && row.ifindex == interface.ifindex && !owned.contains(slot)
        });
        if let Some((slot, _)) = adopted {
            return Some(*slot);
        }
        let named = self.rows_on_ways();
        (1..MAX_INTERFACES)
            .filter_map(|row| InterfaceSlot::new(u8::try_from(row).ok()?))
            .find(|slot| {
                let used = self.tables.interfaces.contains_key(slot)
                    || self.tables.devices.contains_key(slot)
                    || named.contains(slot);
                !used && !owned.contains(slot)
            })
    }
}

/// Bytes in front of what the MTU counts.
const ETHERNET_HEADER: u32 = 14;

fn row_of(interface: &Interface, ifindex: u32) -> InterfaceRow {
    InterfaceRow {
        mac: Way {
            mac: interface.mac,
            ..Way::default()
        }
        .pack(),
        ifindex,
        ipv4: interface.ipv4.map_or([0; 4], |address| address.octets()),
        max_frame: match interface.mtu {
            0 => u32::MAX,
            mtu => mtu.saturating_add(ETHERNET_HEADER),
        },
        padding: 0,
        reserved: 0,
    }
}
