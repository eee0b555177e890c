//! The map of the control tables: made by the agent, because the loader would make it without `BPF_F_MMAPABLE`.

use std::{collections::BTreeMap, io, mem::offset_of, os::fd::AsFd, path::Path};

use lb_common::abi::{
    BackendRow, ConfigRow, Control, FILTER_WORDS, InterfaceRow, InterfaceSlot, MAX_BACKENDS,
    MAX_INTERFACES, MAX_SERVICES, OWN_MACS, ServiceRow,
};

use super::{
    rows::{CONFIG_WORDS, config_row, config_words, interface_row, interface_words},
    shared::SharedArray,
    syscall,
};

/// Name of the map and of its pin.
pub(super) const CONTROL: &str = "CONTROL";
/// The section of the object that the loader makes a map of: an array of one value, which programs address directly.
pub(super) const SECTION: &str = ".bss.control";
/// The name of the memory within it.
pub(super) const SYMBOL: &str = "CONTROL";

/// Makes the map, all zeroes, and pins it.
///
/// # Errors
/// Those of bpf(2).
pub(super) fn create(path: &Path) -> io::Result<()> {
    let map = syscall::create_shared_array(CONTROL, size_of::<Control>())?;
    syscall::pin(map.as_fd(), path)
}

/// What the map that is pinned in `directory` holds, in bytes. The loader writes a value into each map of a section that it loads; so it is given
/// the one in force, and packets that read meanwhile see every word as it was.
///
/// # Errors
/// It can't be opened or mapped.
pub(super) fn in_force(directory: &Path) -> io::Result<Vec<u8>> {
    let map = SharedArray::pinned_read_only(&directory.join(CONTROL))?;
    let words = map.table(0, 1, size_of::<Control>())?;
    let words = (0..size_of::<Control>() / size_of::<u64>()).map(|word| words.load(0, word));
    Ok(words.flat_map(u64::to_ne_bytes).collect())
}

/// The configuration in the mapped map, of whatever version: it is always the first of the tables, and begins with the version.
///
/// # Errors
/// The map is too small.
pub(super) fn config_of(map: &SharedArray) -> io::Result<ConfigRow> {
    let config = map.table(offset_of!(Control, config), 1, size_of::<ConfigRow>())?;
    Ok(config_row(config.row::<CONFIG_WORDS>(0)))
}

const _: () = assert!(offset_of!(Control, config) == 0);

/// The tables within the mapped memory.
#[derive(Debug)]
pub(super) struct ControlTables {
    config: SharedArray,
    pub(super) interfaces: SharedArray,
    own_macs: SharedArray,
    pub(super) filter: SharedArray,
    pub(super) backends: SharedArray,
    pub(super) services: SharedArray,
    keys_version: SharedArray,
}

impl ControlTables {
    /// The tables of the mapped map.
    ///
    /// # Errors
    /// It is too small.
    pub(super) fn of(map: &SharedArray) -> io::Result<Self> {
        Ok(Self {
            config: map.table(offset_of!(Control, config), 1, size_of::<ConfigRow>())?,
            interfaces: map.table(
                offset_of!(Control, interfaces),
                MAX_INTERFACES,
                size_of::<InterfaceRow>(),
            )?,
            own_macs: map.table(offset_of!(Control, own_macs), OWN_MACS, size_of::<u64>())?,
            filter: map.table(offset_of!(Control, filter), FILTER_WORDS, size_of::<u64>())?,
            backends: map.table(
                offset_of!(Control, backends),
                MAX_BACKENDS,
                size_of::<BackendRow>(),
            )?,
            services: map.table(
                offset_of!(Control, services),
                MAX_SERVICES,
                size_of::<ServiceRow>(),
            )?,
            keys_version: map.table(offset_of!(Control, keys_version), 1, size_of::<u64>())?,
        })
    }

    /// Notes that a key of a service has changed, so that no CPU goes by what it found before.
    ///
    /// # Errors
    /// The mapping is for reading alone.
    pub(super) fn note_key_change(&self) -> io::Result<()> {
        let version = self.keys_version.load(0, 0);
        self.keys_version.store(0, 0, version.wrapping_add(1))
    }

    /// Writes a row of the interfaces, then our MAC addresses by index.
    ///
    /// # Errors
    /// The mapping is for reading alone.
    pub(super) fn set_interface(&self, slot: InterfaceSlot, row: &InterfaceRow) -> io::Result<()> {
        let number = u32::from(slot.get());
        // The index, by which packets find the row, last.
        let [mac, place, limit, ..] = interface_words(row);
        self.interfaces.store(number, 0, mac)?;
        self.interfaces.store(number, 2, limit)?;
        self.interfaces.store(number, 1, place)?;
        self.settle_own_macs()
    }

    /// Makes our MAC addresses by index what the rows of the interfaces say: every place, so that the interface that stays has one that it
    /// shared with one that goes.
    fn settle_own_macs(&self) -> io::Result<()> {
        let mut settled = BTreeMap::new();
        for number in 1..self.interfaces.rows() {
            let row = interface_row(self.interfaces.row(number));
            if row.ifindex != 0 {
                settled.insert(row.ifindex % OWN_MACS, row.mac);
            }
        }
        for place in 0..OWN_MACS {
            let mac = settled.get(&place).copied().unwrap_or(0);
            if self.own_macs.load(place, 0) != mac {
                self.own_macs.store(place, 0, mac)?;
            }
        }
        Ok(())
    }

    /// What may change while the program runs.
    pub(super) fn config(&self) -> ConfigRow {
        config_row(self.config.row::<CONFIG_WORDS>(0))
    }

    /// Writes it; the layout's version, which says that there is a data plane, last.
    ///
    /// # Errors
    /// The mapping is for reading alone.
    pub(super) fn set_config(&self, row: &ConfigRow) -> io::Result<()> {
        self.config.store_row(0, config_words(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ifindex: u32, mac: u64) -> InterfaceRow {
        InterfaceRow {
            ifindex,
            mac,
            ..InterfaceRow::default()
        }
    }

    #[test]
    fn an_interface_has_its_mac_by_index_also_when_one_that_shares_the_place_goes() {
        let map = SharedArray::of_our_own(size_of::<Control>());
        let tables = ControlTables::of(&map).unwrap();
        let [first, second] = [1, 2].map(|slot| InterfaceSlot::new(slot).unwrap());
        let mac = |index: u32| tables.own_macs.load(index % OWN_MACS, 0);
        tables.set_interface(first, &row(7, 1)).unwrap();
        assert_eq!(mac(7), 1);

        let shares = row(7 + OWN_MACS, 2);
        tables.set_interface(second, &shares).unwrap();
        assert_eq!(mac(7), 2);
        tables
            .set_interface(second, &InterfaceRow::default())
            .unwrap();
        assert_eq!(mac(7), 1, "the one that stays");

        tables.own_macs.store(300, 0, 5).unwrap();
        tables.set_interface(first, &row(9, 1)).unwrap();
        assert_eq!([mac(7), mac(9), mac(300)], [0, 1, 0]);
    }
}
