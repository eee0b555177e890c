//! Counts the flow table: how full it is, which flows are alive, and what its entries refer to.
//!
//! The table is read in batches (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6), a system call for thousands of entries, while
//! packets go on changing it: the counts are of no single moment. May take milliseconds; call it on a blocking thread.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd},
};

use lb_common::{
    abi::{FlowEntry, FlowKey, word::Way},
    flow,
};

/// What a walk over the table found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCensus {
    /// Entries in the table, living or not.
    pub entries: u64,
    /// Active flows by row of `SERVICES` and row of `BACKENDS`.
    pub active: BTreeMap<(u32, u16), u64>,
    /// Entries that a packet may still use, by row of `SERVICES`.
    pub service_references: BTreeMap<u32, u64>,
    /// Entries that a packet may still use, by row of `BACKENDS`.
    pub backend_references: BTreeMap<u16, u64>,
    /// Entries that a packet may still use, by row of `INTERFACES` that its reply leaves through.
    pub interface_references: BTreeMap<u8, u64>,
}

impl FlowCensus {
    /// Takes one entry into account. `now` is the low half of `jiffies64`.
    fn add(&mut self, key: &FlowKey, entry: &FlowEntry, now: u32, ticks_per_second: u32) {
        self.entries += 1;
        if flow::is_expired(entry, key.protocol, now, ticks_per_second) {
            return;
        }
        *self.service_references.entry(entry.service).or_default() += 1;
        *self.backend_references.entry(entry.backend).or_default() += 1;
        if entry.is_reverse() {
            *self.interface_references.entry(Way::unpack(entry.way).interface).or_default() += 1;
        }
        // A flow has two entries; the client's stands for it.
        if !entry.is_reverse() && flow::is_active(entry, key.protocol, now, ticks_per_second) {
            *self.active.entry((entry.service, entry.backend)).or_default() += 1;
        }
    }

    /// Active flows of a service over all its backends.
    #[must_use]
    pub fn active_of_service(&self, service: u32) -> u64 {
        self.active.range((service, 0)..=(service, u16::MAX)).map(|(_, count)| count).sum()
    }
}

/// Walks over the flow table behind `map`. `now` is the low half of `jiffies64`, in ticks.
///
/// # Errors
/// That of the system call.
pub fn census(map: &impl AsFd, now: u32, ticks_per_second: u32) -> io::Result<FlowCensus> {
    let mut census = FlowCensus::default();
    let mut batch = Batch::new(FIRST_BATCH);
    loop {
        match batch.next(map) {
            Ok(more) => {
                for (key, entry) in batch.taken() {
                    census.add(key, entry, now, ticks_per_second);
                }
                if !more {
                    return Ok(census);
                }
            }
            // A single bucket of the kernel's table holds more than fits: the same position again with more room.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && batch.grow() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Entries asked for at first.
const FIRST_BATCH: usize = 8_192;
/// No bucket is this long.
const LARGEST_BATCH: usize = 1 << 20;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// A position in the table and room for what comes next.
struct Batch {
    position: Option<u32>,
    keys: Vec<FlowKey>,
    entries: Vec<FlowEntry>,
    count: usize,
}

/// The part of `union bpf_attr` that batch commands use, include/uapi/linux/bpf.h.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl Batch {
    fn new(room: usize) -> Self {
        let mut batch = Self { position: None, keys: Vec::new(), entries: Vec::new(), count: 0 };
        batch.make_room(room);
        batch
    }

    fn make_room(&mut self, room: usize) {
        self.keys.resize(room, FlowKey { source: 0, destination: 0, source_port: 0, destination_port: 0, protocol: 0 });
        self.entries.resize(room, FlowEntry::default());
    }

    /// Makes room for more; `false` where there is enough for any bucket.
    fn grow(&mut self) -> bool {
        let room = self.keys.len() * 4;
        if room > LARGEST_BATCH {
            return false;
        }
        self.make_room(room);
        true
    }

    /// Reads the next entries; whether there are more after them.
    fn next(&mut self, map: &impl AsFd) -> io::Result<bool> {
        let mut next_position = 0u32;
        let mut attributes = BatchAttributes {
            in_batch: self.position.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64),
            out_batch: &raw mut next_position as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.entries.as_mut_ptr() as u64,
            count: u32::try_from(self.keys.len()).map_err(io::Error::other)?,
            map_fd: u32::try_from(map.as_fd().as_raw_fd()).map_err(io::Error::other)?,
            elem_flags: 0,
            flags: 0,
        };
        self.count = 0;
        // SAFETY: the attributes point to live memory: `count` keys and entries of the sizes the map has, which the
        // data plane compared when it opened it, and one position each way.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<BatchAttributes>(),
            )
        };
        let more = if result < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
            false
        } else {
            true
        };
        self.count = usize::try_from(attributes.count).map_err(io::Error::other)?;
        self.position = Some(next_position);
        Ok(more)
    }

    fn taken(&self) -> impl Iterator<Item = (&FlowKey, &FlowEntry)> {
        self.keys.iter().zip(&self.entries).take(self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use lb_common::flow::State;

    use super::*;

    const TICKS: u32 = 250;

    fn key(client_port: u16) -> FlowKey {
        let client = SocketAddrV4::new([198, 51, 100, 7].into(), client_port);
        FlowKey::new(client, SocketAddrV4::new([192, 0, 2, 10].into(), 80), 6)
    }

    fn entry(state: State, flags: u8, last_seen: u32) -> FlowEntry {
        FlowEntry { state: state as u8, flags, last_seen, backend: 3, service: 2, ..FlowEntry::default() }
    }

    #[test]
    fn a_flow_counts_once_and_a_closed_one_not_at_all() {
        let mut census = FlowCensus::default();
        for (state, flags) in [
            (State::Established, 0),
            (State::Established, FlowEntry::REVERSE),
            (State::Closed, 0),
        ] {
            census.add(&key(1), &entry(state, flags, 1_000), 1_000, TICKS);
        }
        assert_eq!((census.entries, census.active_of_service(2)), (3, 1));
        assert_eq!(census.backend_references[&3], 3, "a closed flow's last packets may still come");
    }

    #[test]
    fn an_expired_flow_refers_to_nothing() {
        let mut census = FlowCensus::default();
        census.add(&key(1), &entry(State::Closed, 0, 0), TICKS * 11, TICKS);
        assert_eq!(census, FlowCensus { entries: 1, ..FlowCensus::default() });
    }
}
