//! What of a report is shown where.

use std::{collections::BTreeMap, time::SystemTime};

use super::{
    table::{Side, Style, Table},
    units::{ago, count, rate},
};
use crate::status::{
    BackendReport, NoRepliesReport, ServiceReport, SharedBackendReport, StatusReport, Traffic,
};

const COLUMNS: [(&str, Side); 11] = [
    ("SERVICE", Side::Left),
    ("NAME", Side::Left),
    ("WEIGHT", Side::Right),
    ("STATE", Side::Left),
    ("FLOWS", Side::Right),
    ("NEW/s", Side::Right),
    ("PKT/s", Side::Right),
    ("B/s", Side::Right),
    ("PACKETS", Side::Right),
    ("BYTES", Side::Right),
    ("REASON", Side::Left),
];

/// Of backends that several services use.
const SHARED_COLUMNS: [(&str, Side); 8] = [
    ("SHARED BACKEND", Side::Left),
    ("NAME", Side::Left),
    ("NEW/s", Side::Right),
    ("PKT/s", Side::Right),
    ("B/s", Side::Right),
    ("PACKETS", Side::Right),
    ("BYTES", Side::Right),
    ("SERVICES", Side::Left),
];

/// Services of a shared backend that are named; of a thousand the first few say enough.
const NAMED_SERVICES: usize = 4;

/// The whole page.
pub(super) fn render(report: &StatusReport, colour: bool) -> String {
    // By the agent's own clock, so that a terminal elsewhere shows the same.
    let now = humantime::parse_rfc3339(&report.time).ok();
    let mut page = head(report, now, colour);

    let mut table = Table::new(&COLUMNS);
    for service in &report.services {
        table.row(service_row(service));
        for backend in &service.backends {
            table.row(backend_row(backend, now));
        }
    }
    if report.services.is_empty() {
        page.push_str("no services\n");
        return page;
    }
    page.push_str(&table.render(colour));
    if !report.shared_backends.is_empty() {
        let mut table = Table::new(&SHARED_COLUMNS);
        for backend in &report.shared_backends {
            table.row(shared_row(backend));
        }
        page.push_str(&Style::Dim.paint(
            "-: several services use the backend; its traffic, of all of them together, is below",
            colour,
        ));
        page.push_str("\n\n");
        page.push_str(&table.render(colour));
    }
    page
}

/// The agent, the program, the interfaces, the flow table and what became of packets.
fn head(report: &StatusReport, now: Option<SystemTime>, colour: bool) -> String {
    let agent = &report.agent;
    let mut lines = Vec::new();

    let how = if agent.adopted {
        ", adopted what an earlier one left"
    } else {
        ""
    };
    let mut line = format!(
        "instance {}: lb {}, pid {}, up {}{how}; ",
        Style::Bold.paint(&report.instance, colour),
        agent.version,
        agent.pid,
        ago(&agent.started, now),
    );
    line += &if agent.ready {
        Style::Good.paint("ready", colour)
    } else {
        Style::Bad.paint("not ready", colour)
    };
    lines.push(line);

    lines.push(format!(
        "config: {}, read {} ago",
        agent.config,
        ago(&agent.config_loaded, now)
    ));
    for reason in &agent.not_ready {
        lines.push(Style::Bad.paint(&format!("not ready: {reason}"), colour));
    }
    for (part, problem) in &agent.problems {
        lines.push(Style::Unsure.paint(&format!("{part}: {problem}"), colour));
    }
    if let Some(error) = &agent.config_error {
        lines.push(Style::Bad.paint(
            &format!("config: the last reload was refused: {error}"),
            colour,
        ));
    }
    if agent.reconcile_failures > 0 {
        let failures = format!(
            "reconciles: {} of {} failed",
            agent.reconcile_failures, agent.reconciles
        );
        lines.push(Style::Unsure.paint(&failures, colour));
    }

    lines.push(match &report.program {
        None => Style::Bad.paint("program: not loaded", colour),
        Some(program) => format!(
            "program: id {}, tag {}, {} instructions verified, loaded {} ago, log {}",
            program.id,
            program.tag,
            program.verified_instructions,
            ago(&program.loaded, now),
            program.log
        ),
    });
    let interfaces = report
        .interfaces
        .iter()
        .map(|interface| match &interface.reason {
            Some(reason) => Style::Bad.paint(
                &format!("{} {}: {reason}", interface.name, interface.mode),
                colour,
            ),
            None => format!("{} {}", interface.name, interface.mode),
        });
    lines.push(format!(
        "interfaces: {}",
        interfaces.collect::<Vec<_>>().join(", ")
    ));
    for interface in &report.interfaces {
        let name = &interface.name;
        let notices = interface.notices.iter();
        lines.extend(notices.map(|notice| Style::Bad.paint(&format!("{name}: {notice}"), colour)));
        if !interface.driver_losses.is_empty() {
            let losses = listed(&interface.driver_losses);
            lines.push(Style::Bad.paint(&format!("{name}: lost by the driver: {losses}"), colour));
        }
    }

    let table = &report.flow_table;
    lines.push(format!(
        "flow table: {} of {} entries, {}",
        table.entries,
        table.capacity,
        share(table.entries, table.capacity)
    ));
    lines.push(format!("flow table events: {}", listed(&table.events)));
    lines.push(format!("packets: {}", listed(&report.verdicts)));
    lines.push(format!("drops: {}", listed(&report.drops)));
    lines.push(String::new());

    lines.into_iter().fold(String::new(), |mut page, line| {
        page.push_str(&line);
        page.push('\n');
        page
    })
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        "empty".to_owned()
    } else {
        format!("{:.1} %", part as f64 * 100.0 / whole as f64)
    }
}

/// What was counted, most first; `none` where nothing was.
fn listed(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<(&String, &u64)> = counts.iter().filter(|(_, count)| **count > 0).collect();
    counts.sort_by(|one, other| other.1.cmp(one.1));
    let words: Vec<String> = counts
        .iter()
        .map(|(name, number)| format!("{name} {}", count(**number)))
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

fn plain(text: impl Into<String>) -> (String, Style) {
    (text.into(), Style::Plain)
}

fn bold(text: impl Into<String>) -> (String, Style) {
    (text.into(), Style::Bold)
}

fn service_row(service: &ServiceReport) -> Vec<(String, Style)> {
    let usable = service.backends.iter().any(|backend| backend.in_rotation);
    let (name, state, reason) = if service.removed {
        let state = ("removed, draining".to_owned(), Style::Unsure);
        (String::new(), state, plain(""))
    } else {
        let state = plain(format!("{} {}", service.mode, service.scheduler));
        let reason = match &service.problem {
            Some(problem) => problem,
            None if usable => "",
            None => "no backend takes new flows",
        };
        (service.name.clone(), state, (reason.to_owned(), Style::Bad))
    };
    let address = format!("{} {}", service.protocol, service.address);
    let mut row = vec![bold(address), bold(name), plain(""), state];
    row.push(plain(service.active_flows.to_string()));
    row.extend(numbers(&service.traffic));
    row.push(reason);
    row
}

fn backend_row(backend: &BackendReport, now: Option<SystemTime>) -> Vec<(String, Style)> {
    let style = match backend.state.as_str() {
        "up" | "unchecked" if backend.no_replies.is_some() => Style::Bad,
        "up" => Style::Good,
        "unchecked" if backend.next_hop.is_some() => Style::Good,
        "down" => Style::Bad,
        _ => Style::Unsure,
    };
    let name = name_beside(&backend.address, &backend.name);
    let state = format!("{} {}", backend.state, ago(&backend.since, now));
    let mut row = vec![
        plain(format!("  -> {}", backend.address)),
        plain(name),
        plain(backend.weight.to_string()),
        (state.trim_end().to_owned(), style),
    ];
    row.push(plain(backend.active_flows.to_string()));
    row.extend(match &backend.traffic {
        Some(traffic) => numbers(traffic),
        None => std::array::from_fn(|_| plain("-")),
    });
    row.push(match &backend.no_replies {
        Some(missing) => (no_replies(backend, missing, now), Style::Bad),
        None => plain(reason(backend)),
    });
    row
}

/// A name, where it is not the address again.
fn name_beside<'a>(address: &str, name: &'a str) -> &'a str {
    if name == address { "" } else { name }
}

fn shared_row(backend: &SharedBackendReport) -> Vec<(String, Style)> {
    let name = name_beside(&backend.address, &backend.name);
    let mut row = vec![plain(&backend.address), plain(name)];
    row.extend(numbers(&backend.traffic));
    let named = backend.services.iter().take(NAMED_SERVICES);
    let services = named.cloned().collect::<Vec<_>>().join(", ");
    row.push(plain(
        match backend.services.len().saturating_sub(NAMED_SERVICES) {
            0 => services,
            more => format!("{services} and {more} more"),
        },
    ));
    row
}

/// The reason of the state, and what of the rotation it does not say: that a good backend is out of it, or that one to
/// which no packet can be sent is in it.
fn reason(backend: &BackendReport) -> String {
    let usable = matches!(backend.state.as_str(), "up" | "unchecked") && backend.weight != 0;
    let more = match (backend.in_rotation, &backend.next_hop) {
        (false, _) if usable => "; not in rotation",
        (true, None) => "; in rotation without a way to it",
        _ => "",
    };
    format!("{}{more}", backend.reason)
}

/// What is wrong with a backend from which nothing comes back, before the reason of its state.
fn no_replies(
    backend: &BackendReport,
    missing: &NoRepliesReport,
    now: Option<SystemTime>,
) -> String {
    format!(
        "no replies come back through here ({} flows in {}): {}; {}",
        missing.new_flows,
        ago(&missing.since, now),
        missing.help,
        reason(backend)
    )
}

fn numbers(traffic: &Traffic) -> [(String, Style); 5] {
    [
        plain(rate(traffic.new_flows_per_second)),
        plain(rate(traffic.packets_per_second)),
        plain(rate(traffic.bytes_per_second)),
        plain(count(
            traffic
                .forward_packets
                .saturating_add(traffic.reverse_packets),
        )),
        plain(count(
            traffic.forward_bytes.saturating_add(traffic.reverse_bytes),
        )),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StatusReport {
        serde_json::from_str(include_str!("../../../examples/status.json")).unwrap()
    }

    #[test]
    fn the_page_shows_services_and_backends_in_columns() {
        assert_eq!(
            render(&sample(), false),
            include_str!("../../../examples/status.txt")
        );
    }

    #[test]
    fn colour_is_all_that_a_terminal_gets_beside() {
        let coloured = render(&sample(), true);
        assert!(coloured.contains("\x1b[31mdown 12s\x1b[0m"), "{coloured}");
        let mut bare = String::new();
        for (index, part) in coloured.split("\x1b[").enumerate() {
            bare.push_str(if index == 0 {
                part
            } else {
                part.split_once('m').unwrap().1
            });
        }
        assert_eq!(bare, render(&sample(), false));
    }

    #[test]
    fn troubles_are_shown() {
        let mut report = sample();
        report.agent.ready = false;
        report.agent.adopted = true;
        report.agent.config_error = Some("lb.toml:1:1: error: no".into());
        report.agent.reconcile_failures = 3;
        report.program = None;
        let page = render(&report, false);
        for line in [
            "up 2h13m, adopted what an earlier one left; not ready\n",
            "config: the last reload was refused: lb.toml:1:1: error: no\n",
            "reconciles: 3 of 8123 failed\n",
            "program: not loaded\n",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    /// The line of a backend.
    fn line_of(report: &StatusReport, address: &str) -> String {
        let page = render(report, true);
        let mut lines = page.lines();
        let line = lines.find(|line| line.contains(&format!("-> {address}")));
        line.unwrap_or_else(|| panic!("{page}")).to_owned()
    }

    #[test]
    fn a_backend_without_a_way_is_not_shown_as_good() {
        let mut report = sample();
        let backend = &mut report.services[1].backends[0];
        assert_eq!(
            (backend.state.as_str(), backend.in_rotation),
            ("unchecked", true)
        );
        backend.next_hop = None;
        backend.reason = "the pool has no check; 10.0.0.21 does not answer ARP on eth1".to_owned();
        let line = line_of(&report, "10.0.0.21:53");
        assert!(line.contains("\x1b[33munchecked 2h13m\x1b[0m"), "{line}");
        let reason = "does not answer ARP on eth1; in rotation without a way to it";
        assert!(line.ends_with(reason), "{line}");
    }

    #[test]
    fn of_many_services_of_a_shared_backend_the_first_are_named() {
        let mut report = sample();
        let services = (1..=7).map(|number| format!("s{number}"));
        report.shared_backends[0].services = services.collect();
        let page = render(&report, false);
        assert!(page.ends_with("  s1, s2, s3, s4 and 3 more\n"), "{page}");
    }

    #[test]
    fn an_empty_report_is_a_page_too() {
        let page = render(&StatusReport::default(), false);
        assert!(page.ends_with("drops: none\n\nno services\n"), "{page}");
    }
}
