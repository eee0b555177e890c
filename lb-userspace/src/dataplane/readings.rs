//! Counters and flows, read from any thread.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use lb_common::{
    abi::{FlowCounters, FlowEntry, WAYS},
    flow::Clock,
    table::ANCIENT_TICKS,
};

use super::{
    InForce, ProgramInForce, Readings, TableError,
    counters::{COUNTERS, CounterRows},
    held::{Held, Losses},
    io_error,
    layout::{FLOWS, OVERFLOW},
    locked,
    maps::Maps,
    program::Program,
    query,
    shared::SharedArray,
};
use crate::{
    nic::{self, Nic},
    observe::flows::FlowCensus,
    plan::Tables,
};

/// Words of an entry of the flow table.
const ENTRY_WORDS: usize = size_of::<FlowEntry>() / size_of::<u64>();

/// The maps that are only read, with descriptors of their own.
pub(super) struct KernelReadings {
    flows: SharedArray,
    overflow: SharedArray,
    counters: CounterRows,
    program: Arc<Mutex<Program>>,
    maps: Arc<Mutex<Maps>>,
    held: Arc<Mutex<Held>>,
}

impl KernelReadings {
    /// Opens the pinned maps; the error names the map.
    pub(super) fn open(
        directory: &Path,
        program: Arc<Mutex<Program>>,
        maps: Arc<Mutex<Maps>>,
        held: Arc<Mutex<Held>>,
    ) -> Result<Self, (&'static str, io::Error)> {
        let map = |name| {
            SharedArray::pinned_read_only(&directory.join(name)).map_err(|cause| (name, cause))
        };
        Ok(Self {
            flows: map(FLOWS)?,
            overflow: map(OVERFLOW)?,
            counters: CounterRows::pinned_read_only(&directory.join(COUNTERS))
                .map_err(|cause| (COUNTERS, cause))?,
            program,
            maps,
            held,
        })
    }
}

/// The entries of a bucket, as they stand.
fn entries(array: &SharedArray, bucket: u32) -> impl Iterator<Item = FlowEntry> {
    (0..WAYS).map(move |way| entry(array, bucket, way))
}

/// One of them.
fn entry(array: &SharedArray, bucket: u32, way: u32) -> FlowEntry {
    let first = way as usize * ENTRY_WORDS;
    FlowEntry {
        words: std::array::from_fn(|word| array.load(bucket, first + word)),
    }
}

impl KernelReadings {
    fn clock(&self, ticks_per_second: u32) -> io::Result<Clock> {
        #[expect(clippy::cast_possible_truncation, reason = "entries hold the low half")]
        let now = self.ticks()? as u32;
        Ok(Clock {
            now,
            ticks_per_second,
        })
    }
}

impl Readings for KernelReadings {
    fn tables(&self) -> Result<Tables, TableError> {
        locked(&self.maps).tables()
    }

    fn last_rows(&self) -> (u32, u32) {
        locked(&self.maps).last_rows()
    }

    fn attached(&self, ifindex: u32) -> io::Result<Option<InForce>> {
        query::in_force(ifindex)
    }

    fn nic(&self, name: &str, ifindex: u32) -> io::Result<Nic> {
        nic::read(name, ifindex)
    }

    fn driver_counters(&self, name: &str) -> io::Result<BTreeMap<String, u64>> {
        nic::counters(name)
    }

    fn service(&self, row: u32) -> FlowCounters {
        self.counters.service(row)
    }

    fn backend(&self, row: u32) -> FlowCounters {
        self.counters.backend(row)
    }

    fn verdicts(&self) -> Vec<u64> {
        self.counters.verdicts()
    }

    fn flow_capacity(&self) -> u64 {
        u64::from(self.flows.rows()) * u64::from(WAYS)
    }

    fn table_events(&self) -> Vec<u64> {
        self.counters.table()
    }

    fn census(&self, ticks_per_second: u32) -> io::Result<FlowCensus> {
        let clock = self.clock(ticks_per_second)?;
        let flows = (0..self.flows.rows()).flat_map(|bucket| entries(&self.flows, bucket));
        let buckets = 0..self.overflow.rows();
        let replies = buckets.flat_map(|bucket| entries(&self.overflow, bucket));
        let at = |index| entry(&self.flows, index / WAYS, index % WAYS);
        Ok(FlowCensus::take(flows, at, &clock).with_overflow(replies, &clock))
    }

    fn expire(&self, ticks_per_second: u32) -> io::Result<u64> {
        let clock = self.clock(ticks_per_second)?;
        let mut buckets = 0;
        for bucket in 0..self.flows.rows() {
            let mut entries = entries(&self.flows, bucket).filter_map(|entry| entry.read());
            if entries.any(|(_, recipe)| clock.age(recipe.last_seen()) > ANCIENT_TICKS) {
                let program = locked(&self.program);
                program.expire(bucket).map_err(|error| io_error(&error))?;
                buckets += 1;
            }
        }
        Ok(buckets)
    }

    fn ticks(&self) -> io::Result<u64> {
        let program = locked(&self.program);
        program.ticks().map_err(|error| io_error(&error))
    }

    fn losses(&self) -> Losses {
        let held = locked(&self.held);
        held.losses()
    }

    fn program(&self) -> io::Result<ProgramInForce> {
        let program = locked(&self.program);
        let info = program.info().map_err(|error| io_error(&error))?;
        Ok(ProgramInForce {
            id: info.id(),
            tag: info.tag(),
            loaded: info.loaded_at(),
            verified_instructions: info.verified_instruction_count().unwrap_or(0),
        })
    }
}
