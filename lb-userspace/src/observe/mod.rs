//! What the operator sees of the data plane, read from the maps in force.
//!
//! [`Observer`] reads counters, flows, control maps and the program; [`report`] joins them with what only the core
//! knows ([`Known`]) into a [`StatusReport`]. Reading may take milliseconds: call it on a blocking thread. Nothing here
//! writes.

pub mod flows;
pub mod rates;
mod report;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use lb_common::abi::{BackendId, FlowCounters, InterfaceSlot, ServiceId};

pub(crate) use report::timestamp;
pub use report::{BackendHealth, Known, KnownInterface};

use crate::{
    dataplane::{InForce, ProgramInForce, Readings},
    observe::{flows::FlowCensus, rates::Rates},
    plan::{References, Tables},
    status::StatusReport,
};

/// A count of the flow table serves for this long; on a large one it costs milliseconds of a CPU.
const CENSUS_AGE: Duration = Duration::from_secs(2);

/// Reads the data plane, and remembers what rates and repeated questions need.
pub struct Observer {
    readings: Arc<dyn Readings>,
    ticks_per_second: u32,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    census: Option<(Instant, Arc<FlowCensus>)>,
    services: Rates<ServiceId, RATES>,
    backends: Rates<BackendId, RATES>,
}

/// Flows, packets and bytes a second.
const RATES: usize = 3;

/// Everything that was read for one report.
#[derive(Default)]
struct Seen {
    tables: Tables,
    services: BTreeMap<ServiceId, (FlowCounters, [f64; RATES])>,
    backends: BTreeMap<BackendId, (FlowCounters, [f64; RATES])>,
    verdicts: Vec<u64>,
    census: Arc<FlowCensus>,
    program: Option<ProgramInForce>,
    attached: BTreeMap<String, InForce>,
}

impl Observer {
    /// An observer of a data plane whose clock counts so many ticks a second.
    #[must_use]
    pub fn new(readings: Arc<dyn Readings>, ticks_per_second: u32) -> Self {
        Self { readings, ticks_per_second, memory: Mutex::default() }
    }

    /// Reads the counters for the rates, which are taken between two such readings; call it every second.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn sample(&self, now: Instant) -> io::Result<()> {
        let tables = self.readings.tables().map_err(io::Error::other)?;
        self.count(&tables, now).map(drop)
    }

    /// What the flow table refers to at `now`.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn references(&self, now: Instant) -> io::Result<References> {
        let census = self.census(now, Duration::ZERO)?;
        Ok(References {
            started: now,
            backends: census.backend_references.keys().filter_map(|row| BackendId::new(*row)).collect(),
            services: census.service_references.keys().filter_map(|row| ServiceId::new(*row)).collect(),
            interfaces: census.interface_references.keys().filter_map(|row| InterfaceSlot::new(*row)).collect(),
        })
    }

    /// The report of this moment. What can't be read is left out and logged.
    pub fn report(&self, known: &Known, now: Instant, time: SystemTime) -> StatusReport {
        let seen = self.look(known, now).unwrap_or_else(|error| {
            tracing::warn!(%error, "the data plane can't be read for a report");
            Seen::default()
        });
        report::compose(known, &seen, time)
    }

    fn look(&self, known: &Known, now: Instant) -> io::Result<Seen> {
        let tables = self.readings.tables().map_err(io::Error::other)?;
        let (services, backends) = self.count(&tables, now)?;
        let present = known.interfaces.iter().filter_map(|interface| Some((&interface.name, interface.ifindex?)));
        // An interface may go away at any moment.
        let attached = present.filter_map(|(name, ifindex)| {
            Some((name.clone(), self.readings.attached(ifindex).ok().flatten()?))
        });
        Ok(Seen {
            services,
            backends,
            verdicts: self.readings.verdicts()?,
            census: self.census(now, CENSUS_AGE)?,
            program: Some(self.readings.program()?),
            attached: attached.collect(),
            tables,
        })
    }

    /// Reads the counters of every row in use, and the rates since the last time.
    #[expect(clippy::type_complexity, reason = "two tables of the same shape, taken apart at once")]
    fn count(
        &self,
        tables: &Tables,
        now: Instant,
    ) -> io::Result<(
        BTreeMap<ServiceId, (FlowCounters, [f64; RATES])>,
        BTreeMap<BackendId, (FlowCounters, [f64; RATES])>,
    )> {
        let service_ids: Vec<_> = tables.owners().map(|(id, ..)| id).collect();
        let backend_ids: Vec<_> = tables.tenants().map(|(id, ..)| id).collect();
        let services = self.readings.services(service_ids.last().map_or(0, |id| id.get()))?;
        let backends = self.readings.backends(backend_ids.last().map_or(0, |id| id.get().into()))?;
        let services = pick(service_ids, |id| id.get() as usize, &services);
        let backends = pick(backend_ids, |id| usize::from(id.get()), &backends);
        let mut memory = self.memory();
        memory.services.observe(now, totals(&services));
        memory.backends.observe(now, totals(&backends));
        let services = services.into_iter().map(|(id, counters)| (id, (counters, memory.services.of(&id))));
        let backends = backends.into_iter().map(|(id, counters)| (id, (counters, memory.backends.of(&id))));
        Ok((services.collect(), backends.collect()))
    }

    /// A count of the flow table that is no older than `age`.
    fn census(&self, now: Instant, age: Duration) -> io::Result<Arc<FlowCensus>> {
        let mut memory = self.memory();
        if let Some((taken, census)) = &memory.census
            && now.saturating_duration_since(*taken) < age
        {
            return Ok(Arc::clone(census));
        }
        let census = Arc::new(self.readings.census(self.ticks_per_second)?);
        memory.census = Some((now, Arc::clone(&census)));
        Ok(census)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pick<Id: Ord>(ids: Vec<Id>, row: impl Fn(&Id) -> usize, counters: &[FlowCounters]) -> BTreeMap<Id, FlowCounters> {
    let of = |id: &Id| counters.get(row(id)).copied().unwrap_or_default();
    ids.into_iter().map(|id| (of(&id), id)).map(|(counters, id)| (id, counters)).collect()
}

/// What rates are taken of.
fn totals<Id: Ord + Copy>(counters: &BTreeMap<Id, FlowCounters>) -> BTreeMap<Id, [u64; RATES]> {
    let of = |counters: &FlowCounters| {
        [
            counters.new_flows,
            counters.forward_packets.wrapping_add(counters.reverse_packets),
            counters.forward_bytes.wrapping_add(counters.reverse_bytes),
        ]
    };
    counters.iter().map(|(id, counters)| (*id, of(counters))).collect()
}
