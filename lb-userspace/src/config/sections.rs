//! The sections of the file and their keys, one function each: `[[interface]]`, `[[pool]]`, `[[service]]`.

use super::{
    check::{self, check},
    diagnostic::Report,
    draft::{BackendDraft, InterfaceDraft, PoolDraft, ServiceDraft},
    key::{needed, one_of, or, parsed},
    section::{Located, Section},
    value,
};
use crate::model::{AttachMode, Interface, Mode, Protocol, Scheduler};

pub(super) const INTERFACE: &[&str] = &["name", "mode"];
pub(super) const POOL: &[&str] = &["name", "check", "backend"];
pub(super) const BACKEND: &[&str] = &["address", "name", "weight"];
pub(super) const SERVICE: &[&str] = &["name", "address", "protocol", "pool", "mode", "scheduler"];

pub(super) fn interface(section: &Section<'_>, report: &mut Report<'_>) -> InterfaceDraft {
    let name = needed(section, "name", "name = \"eth0\"", value::interface, report);
    let modes = [
        ("auto", AttachMode::Auto),
        ("native", AttachMode::Native),
        ("generic", AttachMode::Generic),
    ];
    let mode = or(
        section,
        "mode",
        AttachMode::Auto,
        one_of("mode", &modes, &[]),
        report,
    );
    let interface = name.as_ref().zip(mode).map(|(name, mode)| Interface {
        name: name.value.clone(),
        mode,
    });
    InterfaceDraft { name, interface }
}

pub(super) fn pool(section: &Section<'_>, report: &mut Report<'_>) -> PoolDraft {
    let name = needed(section, "name", "name = \"web\"", value::name, report);
    let check = section
        .table("check", "[pool.check]", check::KEYS, report)
        .and_then(|section| check(&section, report));
    let sections = section.tables("backend", "[[pool.backend]]", BACKEND, report);
    if section.lacks("backend") {
        let which = name.as_ref().map_or_else(
            || "this pool".to_owned(),
            |name| format!("pool \"{}\"", name.value),
        );
        report.error(
            &section.span,
            format!("{which} has no backends"),
            "add [[pool.backend]] with an address under it",
        );
    }
    let backends = sections
        .iter()
        .map(|section| backend(section, report))
        .collect();
    PoolDraft {
        name,
        check,
        backends,
    }
}

fn backend(section: &Section<'_>, report: &mut Report<'_>) -> BackendDraft {
    let address = needed(
        section,
        "address",
        "address = \"10.0.0.11:80\"",
        value::ipv4_socket,
        report,
    );
    let name = if section.has("name") {
        parsed(section, "name", value::name, report)
    } else {
        address
            .as_ref()
            .map(|address| address.with(address.value.to_string()))
    };
    BackendDraft {
        name,
        address,
        weight: weight(section, report),
    }
}

fn weight(section: &Section<'_>, report: &mut Report<'_>) -> Option<Located<u16>> {
    if !section.has("weight") {
        return Some(Located::new(1, section.span.clone()));
    }
    let weight = section.number("weight", 0..=u32::from(u16::MAX), report)?;
    match weight.value {
        0 => Some(weight.with(0)),
        1 => Some(weight.with(1)),
        other => {
            report.error(
                &weight.span,
                format!("weight {other} is not supported yet: the scheduler \"round-robin\" treats backends alike"),
                "use 1, or 0 for a backend that takes no new flows",
            );
            None
        }
    }
}

pub(super) fn service(section: &Section<'_>, report: &mut Report<'_>) -> ServiceDraft {
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let modes = [("nat", Mode::Nat)];
    let later_modes = ["full-nat", "dsr-l2", "dsr-ipip", "dsr-gue"];
    let schedulers = [("round-robin", Scheduler::RoundRobin)];
    let later_schedulers = [
        "weighted-round-robin",
        "least-connections",
        "power-of-two",
        "maglev",
        "source-hash",
        "random",
    ];
    ServiceDraft {
        name: needed(section, "name", "name = \"www\"", value::name, report),
        address: needed(
            section,
            "address",
            "address = \"192.0.2.10:80\"",
            value::ipv4_socket,
            report,
        ),
        protocol: needed(
            section,
            "protocol",
            "protocol = \"tcp\"",
            one_of("protocol", &protocols, &[]),
            report,
        )
        .map(|protocol| protocol.value),
        pool: needed(
            section,
            "pool",
            "pool = \"web\"",
            |text| Ok(text.to_owned()),
            report,
        ),
        mode: or(
            section,
            "mode",
            Mode::Nat,
            one_of("mode", &modes, &later_modes),
            report,
        ),
        scheduler: or(
            section,
            "scheduler",
            Scheduler::RoundRobin,
            one_of("scheduler", &schedulers, &later_schedulers),
            report,
        ),
    }
}
