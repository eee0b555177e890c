//! What the operator sees of the data plane, read from the maps in force.
//!
//! [`Observer`] reads counters, flows, control maps and the program, and joins them with what only the core
//! knows ([`Known`]) into a [`StatusReport`]. Reading may take milliseconds: call it on a blocking thread. Nothing here
//! writes.

mod drivers;
pub mod flows;
pub mod rates;
mod readiness;
mod replies;
mod report;
mod shared;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use lb_common::abi::{BackendId, FlowCounters, InterfaceSlot, Protocol, ServiceId};

pub(crate) use report::timestamp;
pub use report::{BackendHealth, Known, KnownInterface};

use self::drivers::Driver;

use crate::{
    dataplane::{InForce, ProgramInForce, Readings},
    observe::{
        flows::FlowCensus,
        rates::Rates,
        replies::{Replies, Silence},
    },
    plan::{References, Tables},
    status::StatusReport,
};

/// A count of the flow table serves a report for this long.
const CENSUS_AGE: Duration = Duration::from_secs(2);
/// And for so many times as long as it took: counting a table of a GiB takes most of a second, and whoever asks for
/// reports all the time must not keep a CPU busy.
const CENSUS_SHARE: u32 = 20;

/// Reads the data plane, and remembers what rates and repeated questions need.
pub struct Observer {
    readings: Arc<dyn Readings>,
    ticks_per_second: u32,
    memory: Mutex<Memory>,
    /// Held by whoever counts the flow table, so that nobody counts it a second time meanwhile.
    counting: Mutex<()>,
}

#[derive(Default)]
struct Memory {
    /// When the last count began, how long it took, and what it found.
    census: Option<(Instant, Duration, Arc<FlowCensus>)>,
    services: Rates<ServiceId, RATES>,
    backends: Rates<BackendId, RATES>,
    /// What drivers had counted when the program was attached, by interface.
    drivers: BTreeMap<String, BTreeMap<String, u64>>,
    replies: Replies<BackendId>,
    /// Addresses of backends that the log says so of.
    no_replies: BTreeSet<String>,
}

/// Flows, packets and bytes a second.
const RATES: usize = 3;

/// Counters and rates by id.
type Counted<Id> = BTreeMap<Id, (FlowCounters, [f64; RATES])>;

struct Counts {
    services: Counted<ServiceId>,
    backends: Counted<BackendId>,
}

/// Everything that was read for one report.
#[derive(Default)]
struct Seen {
    tables: Tables,
    /// Rows of `BACKENDS` by tenant.
    rows: BTreeMap<SocketAddr, BackendId>,
    services: Counted<ServiceId>,
    backends: Counted<BackendId>,
    /// Backends from which nothing comes back, and since when as time before the report.
    silent: BTreeMap<BackendId, (Duration, Silence)>,
    verdicts: Vec<u64>,
    table_events: Vec<u64>,
    flow_capacity: u64,
    census: Arc<FlowCensus>,
    program: Option<ProgramInForce>,
    attached: BTreeMap<String, InForce>,
    drivers: BTreeMap<String, Driver>,
}

impl Observer {
    /// An observer of a data plane whose clock counts so many ticks a second.
    #[must_use]
    pub fn new(readings: Arc<dyn Readings>, ticks_per_second: u32) -> Self {
        Self {
            readings,
            ticks_per_second,
            memory: Mutex::default(),
            counting: Mutex::default(),
        }
    }

    /// Reads the counters for the rates, which are taken between two such readings; call it every second.
    pub fn sample(&self, now: Instant) {
        self.count(now);
    }

    /// Has entries freed that will soon look young again; see [`Readings::expire`].
    ///
    /// # Errors
    /// The maintenance program can't be run.
    pub fn expire(&self) -> io::Result<u64> {
        self.readings.expire(self.ticks_per_second)
    }

    /// What the flow table refers to at `now`.
    ///
    /// # Errors
    /// A map can't be read.
    pub fn references(&self, now: Instant) -> io::Result<References> {
        let census = self.census(now, Duration::ZERO)?;
        Ok(References {
            started: now,
            backends: census
                .backend_references
                .keys()
                .filter_map(|row| BackendId::new(*row))
                .collect(),
            services: census
                .service_references
                .keys()
                .filter_map(|row| ServiceId::new(*row))
                .collect(),
            interfaces: census
                .interface_references
                .keys()
                .filter_map(|row| InterfaceSlot::new(*row))
                .collect(),
        })
    }

    /// The report of this moment. What can't be read is left out and logged.
    pub fn report(&self, known: &Known, now: Instant, time: SystemTime) -> StatusReport {
        let seen = self.look(known, now).unwrap_or_else(|error| {
            tracing::warn!(%error, "the data plane can't be read for a report");
            Seen::default()
        });
        let report = report::compose(known, &seen, time);
        self.tell_no_replies(&report);
        report
    }

    /// Logs from which backends no replies come back, and from which they do again.
    fn tell_no_replies(&self, report: &StatusReport) {
        let backends = report.services.iter().flat_map(|service| &service.backends);
        let silent: BTreeMap<_, _> = backends
            .filter_map(|backend| Some((&backend.address, backend.no_replies.as_ref()?)))
            .collect();
        let mut memory = self.memory();
        for (address, missing) in &silent {
            if memory.no_replies.insert((*address).clone()) {
                tracing::warn!(
                    event = "no_replies",
                    %address,
                    new_flows = missing.new_flows,
                    "no replies come back through here; help: {}",
                    missing.help
                );
            }
        }
        memory.no_replies.retain(|address| {
            let still = silent.contains_key(address);
            if !still {
                tracing::info!(event = "replies", %address, "replies come back, or nobody asks any more");
            }
            still
        });
    }

    fn look(&self, known: &Known, now: Instant) -> io::Result<Seen> {
        let tables = self.readings.tables().map_err(io::Error::other)?;
        let Counts { services, backends } = self.count(now);
        let present = known
            .interfaces
            .iter()
            .filter_map(|interface| Some((&interface.name, interface.ifindex?)));
        // An interface may go away at any moment.
        let attached = present.filter_map(|(name, ifindex)| {
            Some((
                name.clone(),
                self.readings.attached(ifindex).ok().flatten()?,
            ))
        });
        let attached = attached.collect();
        let rows: BTreeMap<_, _> = tables
            .tenants()
            .map(|(id, address, _)| (address, id))
            .collect();
        let census = self.census(now, CENSUS_AGE)?;
        let silent = {
            let replies = &mut self.memory().replies;
            for id in spoken_to_by_udp(known, &tables, &rows, &census) {
                replies.forget(&id);
            }
            let missing = replies.missing(now);
            missing
                .map(|(id, silence)| {
                    let ago = now.saturating_duration_since(silence.since);
                    (id, (ago, silence))
                })
                .collect()
        };
        Ok(Seen {
            rows,
            silent,
            services,
            backends,
            verdicts: self.readings.verdicts(),
            table_events: self.readings.table_events(),
            flow_capacity: self.readings.flow_capacity(),
            census,
            program: Some(self.readings.program()?),
            drivers: self.drivers(known, &attached),
            attached,
            tables,
        })
    }

    /// Reads the counters of all rows up to the last in use, and the rates since the last time.
    fn count(&self, now: Instant) -> Counts {
        let (last_service, last_backend) = self.readings.last_rows();
        let services = (0..=last_service)
            .filter_map(|row| Some((ServiceId::new(row)?, self.readings.service(row))));
        let services: BTreeMap<_, _> = services.collect();
        let backends = (0..=last_backend).filter_map(|row| {
            let id = BackendId::new(u16::try_from(row).ok()?)?;
            Some((id, self.readings.backend(row)))
        });
        let backends: BTreeMap<_, _> = backends.collect();
        let mut memory = self.memory();
        memory.services.observe(now, totals(&services));
        memory.backends.observe(now, totals(&backends));
        memory.replies.observe(now, &backends);
        let services = services
            .into_iter()
            .map(|(id, counters)| (id, (counters, memory.services.of(&id))));
        let backends = backends
            .into_iter()
            .map(|(id, counters)| (id, (counters, memory.backends.of(&id))));
        Counts {
            services: services.collect(),
            backends: backends.collect(),
        }
    }

    /// A count of the flow table that began no longer ago than `age`, or than it was worth.
    fn census(&self, now: Instant, age: Duration) -> io::Result<Arc<FlowCensus>> {
        let counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((began, took, census)) = &self.memory().census {
            let share = if age.is_zero() {
                Duration::ZERO
            } else {
                *took * CENSUS_SHARE
            };
            if now.saturating_duration_since(*began) < age.max(share) {
                return Ok(Arc::clone(census));
            }
        }
        let began = Instant::now();
        let census = Arc::new(self.readings.census(self.ticks_per_second)?);
        self.memory().census = Some((now, began.elapsed(), Arc::clone(&census)));
        drop(counting);
        Ok(census)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Backends whose counters may be those of UDP, of which no replies need come: of services of the configuration, and of
/// removed ones that still hold flows.
fn spoken_to_by_udp(
    known: &Known,
    tables: &Tables,
    rows: &BTreeMap<SocketAddr, BackendId>,
    census: &FlowCensus,
) -> BTreeSet<BackendId> {
    let model = &known.model;
    let services = model.services.iter();
    let services = services.filter(|service| service.protocol == Protocol::Udp);
    let used: BTreeSet<_> = services.map(|service| service.pool.as_str()).collect();
    let pools = model.pools.iter();
    let pools = pools.filter(|pool| used.contains(pool.name.as_str()));
    let configured = pools
        .flat_map(|pool| &pool.backends)
        .filter_map(|backend| rows.get(&backend.address).copied());
    let is_udp = |service: u32| {
        let row = ServiceId::new(service).and_then(|id| tables.services.get(&id));
        row.is_some_and(|row| row.protocol == Protocol::Udp as u8)
    };
    let holding = census.active.keys();
    let holding = holding
        .filter(|(service, _)| is_udp(*service))
        .filter_map(|(_, backend)| BackendId::new(*backend));
    configured.chain(holding).collect()
}

/// What rates are taken of.
fn totals<Id: Ord + Copy>(counters: &BTreeMap<Id, FlowCounters>) -> BTreeMap<Id, [u64; RATES]> {
    let of = |counters: &FlowCounters| {
        [
            counters.new_flows,
            counters
                .forward_packets
                .wrapping_add(counters.reverse_packets),
            counters.forward_bytes.wrapping_add(counters.reverse_bytes),
        ]
    };
    counters
        .iter()
        .map(|(id, counters)| (*id, of(counters)))
        .collect()
}
