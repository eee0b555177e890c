//! What the data plane counts: a row a CPU, mapped, so that reading takes no system call.

use std::{fs, io, mem::offset_of, path::Path};

use aya::maps::MapData;
use lb_common::abi::{
    Counters, FlowCounters, MAX_BACKENDS, MAX_SERVICES, MAX_TABLE_EVENTS, MAX_VERDICTS,
};

use super::shared::SharedArray;

/// Name of the map and of its pin.
pub(super) const COUNTERS: &str = "COUNTERS";

const WORD: usize = size_of::<u64>();
/// Words of a row of services or backends.
const WORDS: usize = size_of::<FlowCounters>() / WORD;
/// Those of them that are in use.
const COUNTED: usize = offset_of!(FlowCounters, reserved) / WORD;

/// Rows that the map must have: one for each number that a CPU of this machine may ever get.
///
/// # Errors
/// The kernel's list can't be read.
pub fn cpus() -> io::Result<u32> {
    /// See Documentation/admin-guide/cputopology.rst of the kernel.
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let list = fs::read_to_string(POSSIBLE)
        .map_err(|error| io::Error::new(error.kind(), format!("{POSSIBLE}: {error}")))?;
    last(&list)
        .and_then(|last| last.checked_add(1))
        .ok_or_else(|| io::Error::other(format!("{POSSIBLE} holds no CPU: {list:?}")))
}

/// The last number of a list of ranges, which the kernel gives in their order.
fn last(list: &str) -> Option<u32> {
    list.trim_end().rsplit([',', '-']).next()?.parse().ok()
}

/// The map `COUNTERS`.
#[derive(Debug)]
pub struct CounterRows(SharedArray);

impl CounterRows {
    /// Maps it for reading.
    ///
    /// # Errors
    /// It can't be mapped, or its rows are too short.
    pub fn of(map: &MapData) -> io::Result<Self> {
        Self::fit(SharedArray::read_only(map)?)
    }

    /// Maps the pinned one for reading.
    ///
    /// # Errors
    /// As for [`CounterRows::of`], or the pin can't be opened.
    pub(super) fn pinned_read_only(path: &Path) -> io::Result<Self> {
        Self::fit(SharedArray::pinned_read_only(path)?)
    }

    /// Maps the pinned one.
    ///
    /// # Errors
    /// As for [`CounterRows::pinned_read_only`].
    pub(super) fn pinned(path: &Path) -> io::Result<Self> {
        Self::fit(SharedArray::pinned(path)?)
    }

    fn fit(array: SharedArray) -> io::Result<Self> {
        if array.row_bytes() < size_of::<Counters>() {
            return Err(io::Error::other(format!(
                "rows of {} bytes instead of {}",
                array.row_bytes(),
                size_of::<Counters>()
            )));
        }
        Ok(Self(array))
    }

    /// Packets by [`lb_common::verdict::Verdict::index`].
    #[must_use]
    pub fn verdicts(&self) -> Vec<u64> {
        self.sums(offset_of!(Counters, verdicts), MAX_VERDICTS)
    }

    /// What happened to the flow table, by [`lb_common::table::Event`].
    #[must_use]
    pub fn table(&self) -> Vec<u64> {
        self.sums(offset_of!(Counters, table), MAX_TABLE_EVENTS)
    }

    /// Of the row of a service; zeroes where there is no such row.
    #[must_use]
    pub fn service(&self, row: u32) -> FlowCounters {
        service(row).map_or_else(FlowCounters::default, |first| self.flows(first))
    }

    /// Of the row of a backend; zeroes where there is no such row.
    #[must_use]
    pub fn backend(&self, row: u32) -> FlowCounters {
        backend(row).map_or_else(FlowCounters::default, |first| self.flows(first))
    }

    /// Zeroes those of a service that no program counts for.
    ///
    /// # Errors
    /// There is no such row, or the mapping is for reading alone.
    pub(super) fn clear_service(&self, row: u32) -> io::Result<()> {
        self.clear(service(row))
    }

    /// Zeroes those of a backend that no program counts for.
    ///
    /// # Errors
    /// As for [`CounterRows::clear_service`].
    pub(super) fn clear_backend(&self, row: u32) -> io::Result<()> {
        self.clear(backend(row))
    }

    fn clear(&self, first: Option<usize>) -> io::Result<()> {
        let first = first.ok_or_else(|| io::Error::other("no such row"))?;
        for cpu in 0..self.0.rows() {
            for word in first..first + WORDS {
                self.0.store(cpu, word, 0)?;
            }
        }
        Ok(())
    }

    fn flows(&self, first: usize) -> FlowCounters {
        let mut sums = [0_u64; COUNTED];
        // A CPU's row is a megabyte: a line of it is read once.
        for cpu in 0..self.0.rows() {
            for (word, sum) in sums.iter_mut().enumerate() {
                *sum = sum.wrapping_add(self.0.load(cpu, first + word));
            }
        }
        let [
            forward_packets,
            forward_bytes,
            reverse_packets,
            reverse_bytes,
            new_flows,
        ] = sums;
        FlowCounters {
            forward_packets,
            forward_bytes,
            reverse_packets,
            reverse_bytes,
            new_flows,
            ..FlowCounters::default()
        }
    }

    /// So many words from a byte of the row on, each over all CPUs.
    fn sums(&self, from: usize, count: u32) -> Vec<u64> {
        let words = (from / WORD..).take(count as usize);
        let sum = |word| {
            let of_cpus = (0..self.0.rows()).map(|cpu| self.0.load(cpu, word));
            of_cpus.fold(0, u64::wrapping_add)
        };
        words.map(sum).collect()
    }
}

/// The first word of a service's counters.
fn service(row: u32) -> Option<usize> {
    let first = offset_of!(Counters, services) / WORD;
    (row < MAX_SERVICES).then_some(first + row as usize * WORDS)
}

/// The first word of a backend's counters.
fn backend(row: u32) -> Option<usize> {
    let first = offset_of!(Counters, backends) / WORD;
    (row < MAX_BACKENDS).then_some(first + row as usize * WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cpu_of_a_list_is_found() {
        assert_eq!(last("0\n"), Some(0));
        assert_eq!(last("0-127\n"), Some(127));
        assert_eq!(last("0,2-3,64\n"), Some(64));
        assert_eq!(last("\n"), None);
    }
}
