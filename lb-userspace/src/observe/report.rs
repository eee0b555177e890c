//! Joins what was read with what is known. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use lb_common::{
    abi::{BackendId, FlowCounters, Mode, Protocol, Scheduler, ServiceId, ServiceRow, word::Way},
    table::Event,
    verdict::{DropReason, Verdict},
};

use super::{RATES, Seen, readiness::missing, replies, shared};
use crate::{
    dataplane::InForceMode,
    model::{Backend, DataPlaneLog, Model, Service},
    neighbours::Resolution,
    plan::{ServiceAddress, backend_address},
    status::{
        AgentReport, BackendReport, ChecksReport, FlowTableReport, InterfaceReport,
        NoRepliesReport, ProgramReport, ServiceReport, StatusReport, Traffic,
    },
};

/// What only the core knows.
#[derive(Clone, Debug)]
pub struct Known {
    /// The configuration in force.
    pub model: Arc<Model>,
    /// The agent.
    pub agent: AgentReport,
    /// In the order of the configuration.
    pub interfaces: Vec<KnownInterface>,
    /// By pool and backend.
    pub health: BTreeMap<(String, SocketAddr), BackendHealth>,
    /// VIPs that this host does not take, and why.
    pub refused_vips: BTreeMap<Ipv4Addr, String>,
    /// The ways to backends.
    pub ways: BTreeMap<IpAddr, Resolution>,
}

/// An interface of the configuration.
#[derive(Clone, Debug)]
pub struct KnownInterface {
    /// Kernel name.
    pub name: String,
    /// `None` while it is gone.
    pub ifindex: Option<u32>,
    /// Why the program does not run there, why it runs in generic mode, or which VIPs it does not have; or that it is down.
    pub reason: Option<String>,
    /// What costs packets there, as far as the core knows.
    pub notice: Option<String>,
}

/// A backend of a pool.
#[derive(Clone, Debug)]
pub struct BackendHealth {
    /// `up`, `down`, `checking`, `unchecked`.
    pub state: &'static str,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: SystemTime,
    /// Results of its checks.
    pub checks: Option<ChecksReport>,
}

/// Writes a time as the report holds it.
pub(crate) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// The report.
pub(super) fn compose(known: &Known, seen: &Seen, time: SystemTime) -> StatusReport {
    let row = |verdict: Verdict| {
        seen.verdicts
            .get(verdict.index() as usize)
            .copied()
            .unwrap_or(0)
    };
    let named = |verdict: Verdict| (verdict.name().to_owned(), row(verdict));
    let event_count = |event: Event| seen.table_events.get(event as usize).copied().unwrap_or(0);
    let interfaces: Vec<_> = known
        .interfaces
        .iter()
        .map(|interface| interface_report(interface, seen))
        .collect();
    let mut services = services(known, seen, time);
    let mut agent = known.agent.clone();
    agent
        .not_ready
        .extend(missing(known.model.ready_when, &interfaces, &services));
    agent.ready = agent.not_ready.is_empty();
    let shared_backends = shared::take(&mut services);
    StatusReport {
        instance: known.model.instance.clone(),
        time: timestamp(time),
        agent,
        program: seen.program.as_ref().map(|program| ProgramReport {
            id: program.id,
            tag: format!("{:016x}", program.tag),
            loaded: program.loaded.map(timestamp).unwrap_or_default(),
            verified_instructions: program.verified_instructions,
            log: log_level(known.model.data_plane.log).to_owned(),
        }),
        interfaces,
        services,
        shared_backends,
        flow_table: FlowTableReport {
            capacity: seen.flow_capacity,
            entries: seen.census.entries,
            events: Event::ALL
                .iter()
                .map(|event| (event.name().to_owned(), event_count(*event)))
                .collect(),
        },
        verdicts: Verdict::FORWARDED.into_iter().map(named).collect(),
        drops: DropReason::ALL
            .iter()
            .map(|reason| named(Verdict::Drop(*reason)))
            .collect(),
    }
}

fn interface_report(interface: &KnownInterface, seen: &Seen) -> InterfaceReport {
    let ours = seen.program.as_ref().map(|program| program.id);
    let attached = seen.attached.get(&interface.name);
    let (mode, other) = match attached {
        Some(found) if Some(found.program) != ours => (
            "detached",
            Some(format!("the XDP program {} runs there", found.program)),
        ),
        Some(found) if found.mode == InForceMode::Generic => ("generic", None),
        Some(_) => ("native", None),
        None => ("detached", None),
    };
    let driver = seen.drivers.get(&interface.name);
    let driver = driver.cloned().unwrap_or_default();
    InterfaceReport {
        name: interface.name.clone(),
        ifindex: interface.ifindex,
        mode: mode.to_owned(),
        reason: interface.reason.clone().or(other),
        notices: interface
            .notice
            .iter()
            .cloned()
            .chain(driver.notices)
            .collect(),
        driver_counters: driver.counters,
        driver_losses: driver.losses,
    }
}

fn services(known: &Known, seen: &Seen, time: SystemTime) -> Vec<ServiceReport> {
    let tables = &seen.tables;
    let mut configured = BTreeSet::new();
    let pools: HashMap<_, _> = known
        .model
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.backends.as_slice()))
        .collect();
    // By the range of slots, which services share.
    let mut rotations: HashMap<u64, HashSet<SocketAddr>> = HashMap::new();
    let mut reports: Vec<_> = known
        .model
        .services
        .iter()
        .map(|service| {
            let address = ServiceAddress {
                address: service.address,
                protocol: service.protocol,
            };
            let in_force = tables.service_in_force(address);
            configured.extend(in_force.map(|(id, _)| id));
            let slots = in_force.map_or(0, |(_, row)| row.slots);
            let rotation = rotations.entry(slots).or_insert_with(|| {
                let rotation = in_force.map(|(_, row)| tables.rotation(row));
                rotation.unwrap_or_default().into_iter().collect()
            });
            let members = pools.get(service.pool.as_str()).copied();
            let members = Members {
                all: members.unwrap_or_default(),
                in_rotation: rotation,
            };
            let id = in_force.map(|(id, _)| id);
            let mut report = service_report(known, seen, service, id, &members);
            for (backend, row) in members.all.iter().zip(&mut report.backends) {
                row.no_replies = no_replies(known, seen, backend.address, row, time);
            }
            report
        })
        .collect();
    let removed = tables.owners().filter(|(id, ..)| !configured.contains(id));
    let holding = removed.filter(|(id, ..)| seen.census.active_of_service(id.get()) != 0);
    reports.extend(
        holding.filter_map(|(id, address, row)| Some(removed_service(seen, id, address?, row))),
    );
    reports
}

/// Backends of a service's pool, and those that its new flows are sent to.
struct Members<'a> {
    all: &'a [Backend],
    in_rotation: &'a HashSet<SocketAddr>,
}

fn service_report(
    known: &Known,
    seen: &Seen,
    service: &Service,
    id: Option<ServiceId>,
    members: &Members<'_>,
) -> ServiceReport {
    let mut backends: Vec<_> = members
        .all
        .iter()
        .map(|backend| {
            let row = seen.rows.get(&backend.address).copied();
            let health = known.health.get(&(service.pool.clone(), backend.address));
            let in_rotation = members.in_rotation.contains(&backend.address);
            backend_report(seen, backend, health, in_rotation, (id, row))
        })
        .collect();
    let still_there: BTreeSet<_> = members.all.iter().map(|backend| backend.address).collect();
    if let Some(id) = id {
        backends.extend(removed_backends(seen, id, &still_there));
    }
    ServiceReport {
        name: service.name.clone(),
        address: service.address.to_string(),
        protocol: protocol_name(service.protocol).to_owned(),
        mode: mode_name(service.mode).to_owned(),
        scheduler: scheduler_name(service.scheduler).to_owned(),
        pool: service.pool.clone(),
        removed: false,
        problem: refused_vip(known, service.address.ip()),
        active_flows: id.map_or(0, |id| seen.census.active_of_service(id.get())),
        traffic: traffic(id.and_then(|id| seen.services.get(&id))),
        backends,
    }
}

/// Why this host does not take a VIP, where it does not.
fn refused_vip(known: &Known, vip: IpAddr) -> Option<String> {
    let IpAddr::V4(vip) = vip else { return None };
    let why = known.refused_vips.get(&vip)?;
    Some(format!("its VIP is not taken: {why}"))
}

fn removed_service(
    seen: &Seen,
    id: ServiceId,
    address: ServiceAddress,
    row: &ServiceRow,
) -> ServiceReport {
    let mode = if row.mode == Mode::Nat as u8 {
        mode_name(Mode::Nat)
    } else {
        ""
    };
    let round_robin = row.scheduler == Scheduler::RoundRobin as u8;
    ServiceReport {
        name: address.to_string(),
        address: address.address.to_string(),
        protocol: protocol_name(address.protocol).to_owned(),
        mode: mode.to_owned(),
        scheduler: if round_robin {
            scheduler_name(Scheduler::RoundRobin)
        } else {
            ""
        }
        .to_owned(),
        pool: String::new(),
        removed: true,
        problem: None,
        active_flows: seen.census.active_of_service(id.get()),
        traffic: traffic(seen.services.get(&id)),
        backends: removed_backends(seen, id, &BTreeSet::new()),
    }
}

fn backend_report(
    seen: &Seen,
    backend: &Backend,
    health: Option<&BackendHealth>,
    in_rotation: bool,
    (service, row): (Option<ServiceId>, Option<BackendId>),
) -> BackendReport {
    BackendReport {
        name: backend.name.clone(),
        address: backend.address.to_string(),
        weight: backend.weight,
        state: health.map_or("checking", |health| health.state).to_owned(),
        reason: health
            .map(|health| health.reason.clone())
            .unwrap_or_default(),
        since: health
            .map(|health| timestamp(health.since))
            .unwrap_or_default(),
        in_rotation,
        next_hop: row.and_then(|row| next_hop(seen, row)),
        active_flows: service
            .zip(row)
            .map_or(0, |(service, row)| active(seen, service, row)),
        traffic: Some(traffic(row.and_then(|row| seen.backends.get(&row)))),
        no_replies: None,
        checks: health.and_then(|health| health.checks.clone()),
    }
}

/// Whether nothing comes back from a backend that should answer. One that is down, or to which no way is known, has a
/// better reason.
fn no_replies(
    known: &Known,
    seen: &Seen,
    address: SocketAddr,
    row: &BackendReport,
    time: SystemTime,
) -> Option<NoRepliesReport> {
    let answers = matches!(row.state.as_str(), "up" | "unchecked") && row.next_hop.is_some();
    let (ago, silence) = seen.silent.get(seen.rows.get(&address)?)?;
    let mut help = replies::help(address.ip(), known.ways.get(&address.ip()));
    let drivers = seen.drivers.iter();
    let losing = drivers.filter(|(_, driver)| !driver.losses.is_empty());
    let losing: Vec<_> = losing.map(|(interface, _)| interface.as_str()).collect();
    if !losing.is_empty() {
        let losing = losing.join(" and ");
        help =
            format!("{help}; or the driver of {losing} loses packets on the way there, see below");
    }
    answers.then(|| NoRepliesReport {
        since: timestamp(time.checked_sub(*ago).unwrap_or(time)),
        new_flows: silence.new_flows,
        help: if row.state == "unchecked" {
            format!("if it is alive, {help}")
        } else {
            help
        },
    })
}

/// Backends that hold flows of a service and are no longer of its pool.
fn removed_backends(
    seen: &Seen,
    service: ServiceId,
    members: &BTreeSet<SocketAddr>,
) -> Vec<BackendReport> {
    let range = (service.get(), 0)..=(service.get(), u16::MAX);
    let holding = seen
        .census
        .active
        .range(range)
        .filter_map(|((_, row), _)| BackendId::new(*row));
    let rows = holding.filter_map(|id| Some((id, backend_address(seen.tables.backends.get(&id)?))));
    rows.filter(|(_, address)| !members.contains(address))
        .map(|(id, address)| BackendReport {
            name: address.to_string(),
            address: address.to_string(),
            weight: 0,
            state: "removed".to_owned(),
            reason: "no longer in the configuration; its flows go on".to_owned(),
            since: String::new(),
            in_rotation: false,
            next_hop: next_hop(seen, id),
            active_flows: active(seen, service, id),
            traffic: Some(traffic(seen.backends.get(&id))),
            no_replies: None,
            checks: None,
        })
        .collect()
}

fn active(seen: &Seen, service: ServiceId, backend: BackendId) -> u64 {
    seen.census
        .active
        .get(&(service.get(), backend.get()))
        .copied()
        .unwrap_or(0)
}

fn next_hop(seen: &Seen, id: BackendId) -> Option<String> {
    let way = seen.tables.backends.get(&id)?.way();
    let mac = way.mac.map(|byte| format!("{byte:02x}")).join(":");
    (way.flags & Way::RESOLVED != 0).then_some(mac)
}

fn traffic(seen: Option<&(FlowCounters, [f64; RATES])>) -> Traffic {
    let Some((counters, [new_flows_per_second, packets_per_second, bytes_per_second])) =
        seen.copied()
    else {
        return Traffic::default();
    };
    Traffic {
        forward_packets: counters.forward_packets,
        forward_bytes: counters.forward_bytes,
        reverse_packets: counters.reverse_packets,
        reverse_bytes: counters.reverse_bytes,
        new_flows: counters.new_flows,
        new_flows_per_second,
        packets_per_second,
        bytes_per_second,
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat => "nat",
    }
}

fn scheduler_name(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::RoundRobin => "round-robin",
    }
}

fn log_level(log: DataPlaneLog) -> &'static str {
    match log {
        DataPlaneLog::Off => "off",
        DataPlaneLog::Error => "error",
        DataPlaneLog::Info => "info",
        DataPlaneLog::Debug => "debug",
    }
}
