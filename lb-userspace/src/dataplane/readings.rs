//! Counters and flows, read from any thread.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use aya::maps::MapData;
use lb_common::{
    abi::{FlowCounters, FlowEntry, MAX_TABLE_EVENTS, MAX_VERDICTS, WAYS},
    flow::Clock,
    table::ANCIENT_TICKS,
};

use super::{
    InForce, ProgramInForce, Readings, TableError, io_error,
    layout::{FLOWS, OVERFLOW},
    maps::Maps,
    program::Program,
    query,
    shared::SharedArray,
    syscall::Batches,
};
use crate::{observe::flows::FlowCensus, plan::Tables};

/// Words of an entry of the flow table.
const ENTRY_WORDS: usize = size_of::<FlowEntry>() / size_of::<u64>();
/// Rows of counters read at once; small, because each has a copy for every CPU.
const ROWS_AT_ONCE: usize = 64;

/// The maps that are only read, with descriptors of their own.
pub(super) struct KernelReadings {
    flows: SharedArray,
    overflow: SharedArray,
    services: MapData,
    backends: MapData,
    verdicts: MapData,
    table_events: MapData,
    program: Arc<Mutex<Program>>,
    maps: Arc<Mutex<Maps>>,
}

impl KernelReadings {
    /// Opens the pinned maps; the error names the map.
    pub(super) fn open(
        directory: &Path,
        program: Arc<Mutex<Program>>,
        maps: Arc<Mutex<Maps>>,
    ) -> Result<Self, (&'static str, io::Error)> {
        let open = |name: &'static str| {
            MapData::from_pin(directory.join(name)).map_err(|error| (name, io_error(&error)))
        };
        let map = |name| {
            SharedArray::pinned_read_only(&directory.join(name)).map_err(|cause| (name, cause))
        };
        Ok(Self {
            flows: map(FLOWS)?,
            overflow: map(OVERFLOW)?,
            services: open("COUNTERS_SERVICES")?,
            backends: open("COUNTERS_BACKENDS")?,
            verdicts: open("COUNTERS_VERDICTS")?,
            table_events: open("COUNTERS_TABLE")?,
            program,
            maps,
        })
    }
}

/// The entries of a bucket, as they stand.
fn entries(array: &SharedArray, bucket: u32) -> impl Iterator<Item = FlowEntry> {
    let firsts = (0..WAYS as usize).map(|way| way * ENTRY_WORDS);
    firsts.map(move |first| FlowEntry {
        words: std::array::from_fn(|word| array.load(bucket, first + word)),
    })
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
        self.maps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tables()
    }

    fn last_rows(&self) -> (u32, u32) {
        self.maps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last_rows()
    }

    fn attached(&self, ifindex: u32) -> io::Result<Option<InForce>> {
        query::in_force(ifindex)
    }

    fn services(&self, last: u32) -> io::Result<Vec<FlowCounters>> {
        counters(&self.services, last)
    }

    fn backends(&self, last: u32) -> io::Result<Vec<FlowCounters>> {
        counters(&self.backends, last)
    }

    fn verdicts(&self) -> io::Result<Vec<u64>> {
        sums(&self.verdicts, MAX_VERDICTS)
    }

    fn flow_capacity(&self) -> u64 {
        u64::from(self.flows.rows()) * u64::from(WAYS)
    }

    fn table_events(&self) -> io::Result<Vec<u64>> {
        sums(&self.table_events, MAX_TABLE_EVENTS)
    }

    fn census(&self, ticks_per_second: u32) -> io::Result<FlowCensus> {
        let clock = self.clock(ticks_per_second)?;
        let flows = (0..self.flows.rows()).flat_map(|bucket| entries(&self.flows, bucket));
        let buckets = 0..self.overflow.rows();
        let replies = buckets.flat_map(|bucket| entries(&self.overflow, bucket));
        Ok(FlowCensus::take(flows, &clock).with_overflow(replies, &clock))
    }

    fn expire(&self, ticks_per_second: u32) -> io::Result<u64> {
        let clock = self.clock(ticks_per_second)?;
        let mut buckets = 0;
        for bucket in 0..self.flows.rows() {
            let mut entries = entries(&self.flows, bucket).filter_map(|entry| entry.read());
            if entries.any(|(_, recipe)| clock.age(recipe.last_seen()) > ANCIENT_TICKS) {
                let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
                program.expire(bucket).map_err(|error| io_error(&error))?;
                buckets += 1;
            }
        }
        Ok(buckets)
    }

    fn ticks(&self) -> io::Result<u64> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.ticks().map_err(|error| io_error(&error))
    }

    fn program(&self) -> io::Result<ProgramInForce> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let info = program.info().map_err(|error| io_error(&error))?;
        Ok(ProgramInForce {
            id: info.id(),
            tag: info.tag(),
            loaded: info.loaded_at(),
            verified_instructions: info.verified_instruction_count().unwrap_or(0),
        })
    }
}

/// Calls `each` with the number of every row up to `last` and its copies, one a CPU.
fn rows(
    map: &MapData,
    value_size: usize,
    last: u32,
    mut each: impl FnMut(usize, &[u8]),
) -> io::Result<()> {
    let mut batches = Batches::new(map, size_of::<u32>(), value_size, ROWS_AT_ONCE)?;
    while let Some(entries) = batches.next()? {
        for (key, copies) in entries {
            let row = key.try_into().map_or(0, u32::from_ne_bytes);
            if row > last {
                return Ok(());
            }
            each(row as usize, copies);
        }
    }
    Ok(())
}

/// One count for each row, over all CPUs.
fn sums(map: &MapData, count: u32) -> io::Result<Vec<u64>> {
    let mut counts = vec![0; count as usize];
    rows(map, size_of::<u64>(), count - 1, |row, copies| {
        if let Some(count) = counts.get_mut(row) {
            *count = words(copies).fold(0, u64::wrapping_add);
        }
    })?;
    Ok(counts)
}

fn counters(map: &MapData, last: u32) -> io::Result<Vec<FlowCounters>> {
    const WORDS: usize = size_of::<FlowCounters>() / 8;
    let mut all = vec![FlowCounters::default(); last as usize + 1];
    rows(map, size_of::<FlowCounters>(), last, |row, copies| {
        let mut sums = [0_u64; WORDS];
        for (place, word) in words(copies).enumerate() {
            sums[place % WORDS] = sums[place % WORDS].wrapping_add(word);
        }
        let [
            forward_packets,
            forward_bytes,
            reverse_packets,
            reverse_bytes,
            new_flows,
            reserved @ ..,
        ] = sums;
        if let Some(place) = all.get_mut(row) {
            *place = FlowCounters {
                forward_packets,
                forward_bytes,
                reverse_packets,
                reverse_bytes,
                new_flows,
                reserved,
            };
        }
    })?;
    Ok(all)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)))
}
