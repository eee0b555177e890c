//! One report as metric families.

use std::{collections::HashSet, time::SystemTime};

use prometheus::{Registry, proto::MetricFamily};

use super::vectors::{Make as _, TrafficVecs};
use crate::status::{BackendReport, ServiceReport, StatusReport};

/// Labels of a backend. The address tells apart what may have the same name in two pools.
const BACKEND: [&str; 2] = ["backend", "address"];

/// Every family of `report` that has a series.
pub(super) fn families(report: &StatusReport) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let registry = Registry::new();
    agent(report, &registry)?;
    program(report, &registry)?;
    packets(report, &registry)?;
    services(report, &registry)?;
    service_backends(report, &registry)?;
    backends(report, &registry)?;
    Ok(registry.gather())
}

/// A count as a gauge takes it; what would not fit is past any memory.
fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

fn agent(report: &StatusReport, registry: &Registry) -> Result<(), prometheus::Error> {
    let agent = &report.agent;
    registry
        .gauges(
            "lb_build_info",
            "The running agent; always 1.",
            &["version", "lb_instance"],
        )?
        .with_label_values(&[agent.version.as_str(), &report.instance])
        .set(1);
    registry
        .gauges(
            "lb_ready",
            "Whether the first reconcile is done and the program attached everywhere.",
            &[],
        )?
        .with_label_values::<&str>(&[])
        .set(i64::from(agent.ready));
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
        registry
            .counters(name, help, &[])?
            .with_label_values::<&str>(&[])
            .inc_by(value);
    }
    Ok(())
}

fn program(report: &StatusReport, registry: &Registry) -> Result<(), prometheus::Error> {
    if let Some(program) = &report.program {
        let id = program.id.to_string();
        registry
            .gauges(
                "lb_program_info",
                "The program in the kernel; always 1.",
                &["id", "tag", "log"],
            )?
            .with_label_values(&[id.as_str(), &program.tag, &program.log])
            .set(1);
        registry
            .gauges(
                "lb_program_verified_instructions",
                "Instructions that the verifier walked to accept it.",
                &[],
            )?
            .with_label_values::<&str>(&[])
            .set(i64::from(program.verified_instructions));
        if let Some(loaded) = seconds(&program.loaded) {
            registry
                .times(
                    "lb_program_loaded_timestamp_seconds",
                    "When the program was loaded.",
                    &[],
                )?
                .with_label_values::<&str>(&[])
                .set(loaded);
        }
    }
    let attached = registry.gauges(
        "lb_interface_attached",
        "Whether the program is attached (1) or not (0), by how: native, generic or detached.",
        &["interface", "mode"],
    )?;
    for interface in &report.interfaces {
        let labels = [interface.name.as_str(), &interface.mode];
        attached
            .with_label_values(&labels)
            .set(i64::from(interface.mode != "detached"));
    }
    Ok(())
}

fn packets(report: &StatusReport, registry: &Registry) -> Result<(), prometheus::Error> {
    let verdicts = registry.counters(
        "lb_packets_total",
        "Packets seen, by what became of them.",
        &["verdict"],
    )?;
    for (verdict, count) in &report.verdicts {
        verdicts
            .with_label_values(&[verdict.as_str()])
            .inc_by(*count);
    }
    let dropped = report
        .drops
        .values()
        .fold(0, |sum: u64, count| sum.saturating_add(*count));
    if !report.verdicts.contains_key("drop") {
        verdicts.with_label_values(&["drop"]).inc_by(dropped);
    }
    let drops = registry.counters("lb_drops_total", "Packets dropped, by reason.", &["reason"])?;
    for (reason, count) in &report.drops {
        drops.with_label_values(&[reason.as_str()]).inc_by(*count);
    }
    let events = registry.counters(
        "lb_flow_table_events_total",
        "Entries evicted by kind, flows that found no entry, inserts lost to another CPU.",
        &["event"],
    )?;
    for (event, count) in &report.flow_table.events {
        events.with_label_values(&[event.as_str()]).inc_by(*count);
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
    for (name, help, value) in table {
        registry
            .gauges(name, help, &[])?
            .with_label_values::<&str>(&[])
            .set(gauge(value));
    }
    Ok(())
}

fn services(report: &StatusReport, registry: &Registry) -> Result<(), prometheus::Error> {
    let info = registry.gauges(
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
    )?;
    let active = registry.gauges(
        "lb_service_active_flows",
        "Flows of a service that are neither closed nor idle past their time.",
        &["service"],
    )?;
    let rotation = registry.gauges(
        "lb_service_backends_in_rotation",
        "Backends that new flows of a service are sent to.",
        &["service"],
    )?;
    let traffic = TrafficVecs::new(registry, "service", &["service"])?;
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
        active
            .with_label_values(&[name])
            .add(gauge(service.active_flows));
        traffic.add(&[name], &service.traffic);
        if !service.removed {
            info.with_label_values(&[name, address, protocol, mode, scheduler, pool])
                .set(1);
            let in_rotation = service
                .backends
                .iter()
                .filter(|backend| backend.in_rotation)
                .count() as u64;
            rotation.with_label_values(&[name]).set(gauge(in_rotation));
        }
    }
    Ok(())
}

/// What a backend is to each service.
fn service_backends(report: &StatusReport, registry: &Registry) -> Result<(), prometheus::Error> {
    let labels = ["service", BACKEND[0], BACKEND[1]];
    let active = registry.gauges(
        "lb_backend_active_flows",
        "Flows of a service on a backend.",
        &labels,
    )?;
    let rotation = registry.gauges(
        "lb_backend_in_rotation",
        "Whether new flows of a service are sent to a backend.",
        &labels,
    )?;
    for service in &report.services {
        for backend in &service.backends {
            let labels = [service.name.as_str(), &backend.name, &backend.address];
            active
                .with_label_values(&labels)
                .add(gauge(backend.active_flows));
            rotation
                .with_label_values(&labels)
                .set(i64::from(backend.in_rotation));
        }
    }
    Ok(())
}

/// What a backend is by itself or in its pool. Several services may show the same one.
fn backends(report: &StatusReport, registry: &Registry) -> Result<(), prometheus::Error> {
    let in_pool = ["pool", BACKEND[0], BACKEND[1]];
    let up = registry.gauges(
        "lb_backend_up",
        "Whether a backend is up: by its checks, or because none are configured.",
        &in_pool,
    )?;
    let weight = registry.gauges(
        "lb_backend_weight",
        "Weight of a backend in the configuration.",
        &in_pool,
    )?;
    let resolved = registry.gauges(
        "lb_backend_next_hop_resolved",
        "Whether the way to a backend is known down to the MAC address.",
        &BACKEND,
    )?;
    let traffic = TrafficVecs::new(registry, "backend", &BACKEND)?;

    let mut counted = HashSet::new();
    for service in &report.services {
        for backend in &service.backends {
            let BackendReport {
                name,
                address,
                state,
                ..
            } = backend;
            if state != "removed" && !service.removed {
                let labels = [service.pool.as_str(), name, address];
                up.with_label_values(&labels)
                    .set(i64::from(state == "up" || state == "unchecked"));
                weight
                    .with_label_values(&labels)
                    .set(i64::from(backend.weight));
            }
            // Its traffic is that of all services together, so it counts once, under the first name it has.
            if counted.insert(address) {
                let labels = [name.as_str(), address];
                traffic.add(&labels, &backend.traffic);
                resolved
                    .with_label_values(&labels)
                    .set(i64::from(backend.next_hop.is_some()));
            }
        }
    }
    Ok(())
}
