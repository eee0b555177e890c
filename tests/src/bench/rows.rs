//! The rows of the table: what is measured, under which name, and which way its packets have to go.
//!
//! A mode, an address family or a scheduler adds its rows here and nowhere else.

use lb_common::abi::Protocol;

use super::packets::{OTHER_PORT, STRANGER, Step, VIP, arp, opening, plan, towards};
use super::plan::Plan;
use super::replay::Lookup;
use crate::frames::TcpFlags;

/// A row.
pub(super) struct Row {
    /// Its name in every report.
    pub(super) name: String,
    /// Nanoseconds above the floor that it should not exceed on a machine whose [`CALIBRATION`] is [`REFERENCE_NS`].
    pub(super) target_ns: Option<f64>,
    /// What it runs on.
    pub(super) scene: Scene,
    /// Its packets.
    pub(super) plan: Plan,
    /// What has to become of them.
    pub(super) path: Path,
}

/// What a row runs on. Rows of equal scenes share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scene {
    /// So many flows whose both ends were heard, in a table that they fill to a quarter or a half.
    Known(Protocol, u32),
    /// So many known flows, each of which has been silent for some seconds before its packet.
    Silent(Protocol, u32),
    /// A table that is half full in the middle of the run. New for each run.
    HalfFull(Protocol),
    /// A table that has been full for as long as it takes until its entries may be evicted.
    Full(Protocol),
    /// So many known flows, in a table that a flood then fills. New for each run.
    Flooded(Protocol, u32),
    /// No balancer: a hash table with the packets' keys in it.
    Lookup(Lookup),
    /// No balancer: memory as large as a flow table.
    Lines,
}

/// The way of a row's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Sent to the backend of their flow, which was known.
    Forward,
    /// Sent to the client as from the VIP.
    Reverse,
    /// Each sent to a backend, each a new flow.
    New,
    /// Passed as they came.
    Foreign,
    /// Sent to backends, with an entry or without; those of known flows to theirs, as far as their entries last.
    Flood,
    /// All found.
    Found,
}

/// Name of the row that other machines are compared by.
pub(super) const CALIBRATION: &str = "calibration/lru-lookup";
/// Names of the rows that wait for one line of memory, less the number of lines.
const LINE_READ: &str = "calibration/line-read";
/// What [`CALIBRATION`] costs on the machine that the targets are for.
pub(super) const REFERENCE_NS: f64 = 37.0;

/// Known flows: their number, its name, and the targets of uniform and of skewed packets.
const KNOWN: [(u32, &str, Option<f64>, Option<f64>); 4] = [
    (1, "1", Some(15.0), None),
    (10_000, "10k", Some(25.0), None),
    (100_000, "100k", None, None),
    (500_000, "500k", Some(140.0), Some(55.0)),
];
/// Flows of which each is silent before its packet: those of a real site mostly are.
const SILENT_FLOWS: u32 = 500_000;
/// Flows that clients who are not ours would have.
const FOREIGN_FLOWS: u32 = 10_000;
/// Keys in the calibration's table: few enough for the nearer caches and for the pages that the processor remembers, so
/// that the figure is the processor's and not what the neighbours of a shared machine leave of its memory.
pub(super) const LOOKUP_KEYS: u32 = 1_024;
/// Keys in the other table, of which a row's packets ask for some or all.
pub(super) const MANY_LOOKUP_KEYS: u32 = 500_000;
/// Flows that a flood finds.
const FLOODED_FLOWS: u32 = 100_000;
/// Both transports, by the names they have in a row's.
const PROTOCOLS: [(Protocol, &str); 2] = [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")];

/// Whether a row measures the machine and nothing of ours.
pub(super) fn is_of_the_machine(name: &str) -> bool {
    name.starts_with("calibration/")
}

/// The row of the machine that shows what memory alone costs a row of known flows: each of its packets waits for one line
/// of as many. `None` where most packets meet lines that the caches hold.
pub(super) fn line_row(name: &str) -> Option<String> {
    let flows = name.strip_prefix("hit/")?.rsplit('/').next()?;
    let number = flows.strip_suffix("-silent").unwrap_or(flows);
    let known = KNOWN.iter().any(|(_, known, ..)| *known == number);
    known.then(|| format!("{LINE_READ}/{number}"))
}

/// All rows.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![lookups(CALIBRATION.to_owned(), Lookup::Few, LOOKUP_KEYS)];
    for (keys, number, ..) in KNOWN {
        if keys > LOOKUP_KEYS {
            rows.push(lookups(
                format!("{CALIBRATION}/{number}"),
                Lookup::Many,
                keys,
            ));
        }
    }
    rows.extend(KNOWN.map(|(flows, number, ..)| lines(flows, number)));
    for (protocol, transport) in PROTOCOLS {
        for (path, step) in [
            (Path::Forward, Step::Confirm),
            (Path::Reverse, Step::Deliver),
        ] {
            let direction = if path == Path::Forward {
                "forward"
            } else {
                "reverse"
            };
            for (flows, number, uniform, skewed) in KNOWN {
                let packets = plan(step.kind(protocol));
                let row = |suffix: &str, target_ns, plan| Row {
                    name: format!("hit/nat/ipv4/{transport}/{direction}/{number}{suffix}"),
                    target_ns,
                    scene: Scene::Known(protocol, flows),
                    plan,
                    path,
                };
                rows.push(row("", uniform, packets.at_random(flows)));
                if flows > 1 {
                    rows.push(row("-skewed", skewed, packets.skewed(flows)));
                }
            }
        }
        for (scene, state, target_ns) in [
            (Scene::HalfFull(protocol), "half", 450.0),
            (Scene::Full(protocol), "full", 500.0),
        ] {
            rows.push(Row {
                name: format!("new/nat/ipv4/{transport}/{state}"),
                target_ns: Some(target_ns),
                scene,
                plan: opening(protocol),
                path: Path::New,
            });
        }
    }
    rows.push(silent());
    rows.extend(foreign());
    rows.push(flood());
    rows
}

fn foreign() -> [Row; 3] {
    let tcp = |address, port| towards(address, port, Protocol::Tcp, TcpFlags::ACK);
    [
        ("other-address", tcp(STRANGER, 80)),
        ("other-port", tcp(VIP, OTHER_PORT)),
        ("arp", arp()),
    ]
    .map(|(what, kind)| Row {
        name: format!("foreign/ipv4/{what}"),
        target_ns: Some(4.0),
        scene: Scene::Known(Protocol::Tcp, FOREIGN_FLOWS),
        plan: plan(kind).at_random(FOREIGN_FLOWS),
        path: Path::Foreign,
    })
}

/// One packet of each flow, in the order in which the flows were made, which says nothing of where they lie.
fn silent() -> Row {
    let protocol = Protocol::Tcp;
    Row {
        name: "hit/nat/ipv4/tcp/forward/500k-silent".to_owned(),
        target_ns: Some(140.0),
        scene: Scene::Silent(protocol, SILENT_FLOWS),
        plan: plan(Step::Confirm.kind(protocol)).in_sequence(SILENT_FLOWS.into()),
        path: Path::Forward,
    }
}

/// Seven SYNs of flows that have not been, and one packet of a known flow.
fn flood() -> Row {
    let known = plan(Step::Confirm.kind(Protocol::Tcp)).at_random(FLOODED_FLOWS);
    let mut plan = opening(Protocol::Tcp);
    plan.next = FLOODED_FLOWS.into();
    plan.kinds[1] = known.kinds[1];
    Row {
        name: "flood/syn".to_owned(),
        target_ns: Some(280.0),
        scene: Scene::Flooded(Protocol::Tcp, FLOODED_FLOWS),
        plan,
        path: Path::Flood,
    }
}

/// What a hit in an LRU hash of 1 Mi entries costs, of which so many are asked for: with many keys, the memory of the machine too, which an
/// LRU hash has to wait for more often than the flow table.
fn lookups(name: String, table: Lookup, keys: u32) -> Row {
    Row {
        name,
        target_ns: None,
        scene: Scene::Lookup(table),
        plan: plan(Step::Confirm.kind(Protocol::Tcp)).at_random(keys),
        path: Path::Found,
    }
}

/// What it costs to wait for one line of memory of each flow: no table can have so many flows for less.
fn lines(flows: u32, number: &str) -> Row {
    Row {
        name: format!("{LINE_READ}/{number}"),
        target_ns: None,
        scene: Scene::Lines,
        plan: plan(Step::Confirm.kind(Protocol::Tcp)).at_random(flows),
        path: Path::Found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_flows_at_random_have_a_row_of_as_many_lines() {
        let names: Vec<_> = rows().into_iter().map(|row| row.name).collect();
        let mut with_a_line = 0;
        for name in &names {
            let Some(line) = line_row(name) else { continue };
            assert!(names.contains(&line), "{name}: {line}");
            with_a_line += 1;
        }
        // Two protocols, two directions, four numbers of flows, and the silent ones.
        assert_eq!(with_a_line, 2 * 2 * 4 + 1);
        assert_eq!(line_row("hit/nat/ipv4/tcp/forward/10k-skewed"), None);
        assert_eq!(line_row("new/nat/ipv4/tcp/half"), None);
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names: Vec<_> = rows().into_iter().map(|row| row.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
