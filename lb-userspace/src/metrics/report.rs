//! One report as metric families.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use super::vectors::{Family, TrafficFamilies};
use crate::status::{BackendReport, ServiceReport, StatusReport};

/// Labels of a backend. The address tells apart what may have the same name in two pools.
const BACKEND: [&str; 2] = ["backend", "address"];

/// Every family of `report`.
pub(super) fn families(report: &StatusReport) -> Vec<Family> {
    let mut families = agent(report);
    families.extend(program(report));
    families.extend(packets(report));
    families.extend(services(report));
    families.extend(service_backends(report));
    families.extend(backends(report));
    families
}

/// A family of one series.
fn single(mut family: Family, labels: &[&str], count: u64) -> Family {
    family.set(labels, count);
    family
}

/// RFC 3339 as seconds since the epoch; `None` where the report has no such time.
fn seconds(time: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs_f64(),
    )
}

fn agent(report: &StatusReport) -> Vec<Family> {
    let agent = &report.agent;
    let mut families = vec![
        single(
            Family::gauges(
                "lb_build_info",
                "The running agent; always 1.",
                &["version", "lb_instance"],
            ),
            &[agent.version.as_str(), &report.instance],
            1,
        ),
        single(
            Family::gauges(
                "lb_ready",
                "Whether the program runs on every interface, its pins are there, the first checks are done, and services can serve as far as ready_when asks.",
                &[],
            ),
            &[],
            u64::from(agent.ready),
        ),
    ];
    let totals = [
        (
            "lb_reconciles_total",
            "Comparisons of the desired state with the maps in force.",
            agent.reconciles,
        ),
        (
            "lb_reconcile_failures_total",
            "Reconciles that failed and were tried again.",
            agent.reconcile_failures,
        ),
        (
            "lb_map_changes_total",
            "Changes that the agent made to maps.",
            agent.changes,
        ),
    ];
    for (name, help, value) in totals {
        families.push(single(Family::counters(name, help, &[]), &[], value));
    }
    families
}

fn program(report: &StatusReport) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(program) = &report.program {
        let id = program.id.to_string();
        families.push(single(
            Family::gauges(
                "lb_program_info",
                "The program in the kernel; always 1.",
                &["id", "tag", "log"],
            ),
            &[id.as_str(), &program.tag, &program.log],
            1,
        ));
        families.push(single(
            Family::gauges(
                "lb_program_verified_instructions",
                "Instructions that the verifier walked to accept it.",
                &[],
            ),
            &[],
            program.verified_instructions.into(),
        ));
        if let Some(loaded) = seconds(&program.loaded) {
            let mut family = Family::gauges(
                "lb_program_loaded_timestamp_seconds",
                "When the program was loaded.",
                &[],
            );
            family.set_seconds(&[], loaded);
            families.push(family);
        }
    }
    let mut attached = Family::gauges(
        "lb_interface_attached",
        "Whether the program is attached (1) or not (0), by how: native, generic or detached.",
        &["interface", "mode"],
    );
    for interface in &report.interfaces {
        let labels = [interface.name.as_str(), &interface.mode];
        attached.set(&labels, u64::from(interface.mode != "detached"));
    }
    families.push(attached);
    families.extend(drivers(report));
    families
}

fn drivers(report: &StatusReport) -> [Family; 2] {
    let mut counters = Family::counters(
        "lb_driver_counters_total",
        "What the driver of an interface counts of XDP and of lost packets, by the names of ethtool -S.",
        &["interface", "counter"],
    );
    let mut notices = Family::gauges(
        "lb_interface_notices",
        "Settings of an interface that cost packets or speed, which lb status names.",
        &["interface"],
    );
    for interface in &report.interfaces {
        for (name, count) in &interface.driver_counters {
            counters.set(&[&interface.name, name], *count);
        }
        notices.set(&[&interface.name], interface.notices.len() as u64);
    }
    [counters, notices]
}

fn packets(report: &StatusReport) -> Vec<Family> {
    let mut verdicts = Family::counters(
        "lb_packets_total",
        "Packets seen, by what became of them.",
        &["verdict"],
    );
    for (verdict, count) in &report.verdicts {
        verdicts.set(&[verdict], *count);
    }
    let dropped = report
        .drops
        .values()
        .fold(0, |sum: u64, count| sum.saturating_add(*count));
    if !report.verdicts.contains_key("drop") {
        verdicts.set(&["drop"], dropped);
    }
    let mut drops = Family::counters("lb_drops_total", "Packets dropped, by reason.", &["reason"]);
    for (reason, count) in &report.drops {
        drops.set(&[reason], *count);
    }
    let mut events = Family::counters(
        "lb_flow_table_events_total",
        "Entries evicted by kind, packets whose flow found no room, inserts lost to another CPU, packets sent by hash because other CPUs held the locks.",
        &["event"],
    );
    for (event, count) in &report.flow_table.events {
        events.set(&[event], *count);
    }
    let table = [
        (
            "lb_flow_table_entries",
            "Entries in the flow table; a flow in mode nat takes two.",
            report.flow_table.entries,
        ),
        (
            "lb_flow_table_capacity",
            "Entries that the flow table can hold.",
            report.flow_table.capacity,
        ),
    ];
    let mut families = vec![verdicts, drops, events];
    for (name, help, value) in table {
        families.push(single(Family::gauges(name, help, &[]), &[], value));
    }
    families
}

fn services(report: &StatusReport) -> Vec<Family> {
    let mut info = Family::gauges(
        "lb_service_info",
        "A service of the configuration; always 1.",
        &[
            "service",
            "address",
            "protocol",
            "mode",
            "scheduler",
            "pool",
        ],
    );
    let mut active = Family::gauges(
        "lb_service_active_flows",
        "Flows of a service that are neither closed nor idle past their time.",
        &["service"],
    );
    let mut rotation = Family::gauges(
        "lb_service_backends_in_rotation",
        "Backends that new flows of a service are sent to.",
        &["service"],
    );
    let mut traffic = TrafficFamilies::new("service", "", &["service"]);
    for service in &report.services {
        let ServiceReport {
            name,
            address,
            protocol,
            mode,
            scheduler,
            pool,
            ..
        } = service;
        active.add(&[name], service.active_flows);
        traffic.add(&[name], &service.traffic);
        if !service.removed {
            info.set(&[name, address, protocol, mode, scheduler, pool], 1);
            let in_rotation = service
                .backends
                .iter()
                .filter(|backend| backend.in_rotation)
                .count() as u64;
            rotation.set(&[name], in_rotation);
        }
    }
    let mut families = vec![info, active, rotation];
    families.extend(traffic.into_families());
    families
}

/// What a backend is to each service.
fn service_backends(report: &StatusReport) -> [Family; 2] {
    let labels = ["service", BACKEND[0], BACKEND[1]];
    let mut active = Family::gauges(
        "lb_backend_active_flows",
        "Flows of a service on a backend.",
        &labels,
    );
    let mut rotation = Family::gauges(
        "lb_backend_in_rotation",
        "Whether new flows of a service are sent to a backend.",
        &labels,
    );
    for service in &report.services {
        for backend in &service.backends {
            let labels = [service.name.as_str(), &backend.name, &backend.address];
            active.add(&labels, backend.active_flows);
            rotation.set(&labels, u64::from(backend.in_rotation));
        }
    }
    [active, rotation]
}

/// What a backend is by itself or in its pool. Several services may show the same one.
fn backends(report: &StatusReport) -> Vec<Family> {
    let in_pool = ["pool", BACKEND[0], BACKEND[1]];
    let mut up = Family::gauges(
        "lb_backend_up",
        "Whether a backend is up: by its checks, or because none are configured.",
        &in_pool,
    );
    let mut weight = Family::gauges(
        "lb_backend_weight",
        "Weight of a backend in the configuration.",
        &in_pool,
    );
    let mut resolved = Family::gauges(
        "lb_backend_next_hop_resolved",
        "Whether the way to a backend is known down to the MAC address.",
        &BACKEND,
    );
    let mut no_replies = Family::gauges(
        "lb_backend_no_replies",
        "Whether new TCP flows go to a backend that is up or unchecked and no packet comes back from it (1).",
        &BACKEND,
    );
    let mut traffic = TrafficFamilies::new("backend", " over all services that use it", &BACKEND);

    let shared = report.shared_backends.iter();
    let shared: HashMap<_, _> = shared
        .map(|backend| (&backend.address, &backend.traffic))
        .collect();
    let backends = report.services.iter().flat_map(|service| &service.backends);
    let silent: HashSet<_> = backends
        .filter(|backend| backend.no_replies.is_some())
        .map(|backend| &backend.address)
        .collect();
    let (mut counted, mut pools) = (HashSet::new(), HashSet::new());
    for service in &report.services {
        // A pool is the same in all services that share it.
        let first = !service.removed && pools.insert(&service.pool);
        for backend in &service.backends {
            let BackendReport {
                name,
                address,
                state,
                ..
            } = backend;
            if first && state != "removed" {
                let labels = [service.pool.as_str(), name, address];
                up.set(&labels, u64::from(state == "up" || state == "unchecked"));
                weight.set(&labels, backend.weight.into());
            }
            // Its traffic is that of all services together, so it counts once, under the first name it has.
            if counted.insert(address) {
                let labels = [name.as_str(), address];
                let own = backend.traffic.as_ref();
                if let Some(counts) = own.or_else(|| shared.get(address).copied()) {
                    traffic.add(&labels, counts);
                }
                resolved.set(&labels, u64::from(backend.next_hop.is_some()));
                no_replies.set(&labels, u64::from(silent.contains(address)));
            }
        }
    }
    let mut families = vec![up, weight, resolved, no_replies];
    families.extend(traffic.into_families());
    families
}
