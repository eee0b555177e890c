//! Every bound of a value, from both sides: the last that is taken and the first that is not.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::config::{
    draft::{BackendDraft, InterfaceDraft, PoolDraft, ServiceDraft},
    section::Located,
};

/// Of a key that stands in the place of a line of [`GOOD`]: a value that is just taken, and one that just is not.
#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn a_value_at_its_bound_is_taken_and_one_beyond_it_is_not() {
    let (longest, too_long) = ("n".repeat(64), "n".repeat(65));
    let (instance, too_long_instance) = ("i".repeat(32), "i".repeat(33));
    let (socket, too_long_socket) = ("s".repeat(106), "s".repeat(107));
    let check = "type = \"http\"";
    let backend = "address = \"10.0.0.11:80\"";
    let vip = "\"192.0.2.10:80\"";
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        (vip, "\"192.0.2.10:{}\"", &["1", "65535"], &["0", "65536"]),
        (
            backend,
            "address = \"10.0.0.11:{}\"",
            &["1", "65535"],
            &["0", "65536"],
        ),
        (
            "instance = \"lb\"",
            "metrics.listen = \"[::1]:{}\"",
            &["1", "65535"],
            &["0", "65536"],
        ),
        (
            check,
            "type = \"http\"\nport = {}",
            &["1", "65535"],
            &["0", "65536"],
        ),
        (
            check,
            "type = \"http\"\nrise = {}",
            &["1", "1000"],
            &["0", "1001"],
        ),
        (
            check,
            "type = \"http\"\nfall = {}",
            &["1", "1000"],
            &["0", "1001"],
        ),
        (
            check,
            "type = \"http\"\nexpect = [{}]",
            &["100", "599", "\"100-599\"", "\"200-200\""],
            &["99", "600", "\"99-200\"", "\"200-600\"", "\"201-200\""],
        ),
        (
            check,
            "type = \"http\"\ninterval = \"{}\"",
            &["10ms", "60m", "3600s", "3600000ms"],
            &["9ms", "61m", "3601s", "3600001ms"],
        ),
        (
            check,
            "type = \"http\"\ninterval = \"10ms\"\ntimeout = \"{}\"",
            &["1ms", "10ms"],
            &["0ms", "101ms"],
        ),
        (
            backend,
            "address = \"10.0.0.11:80\"\nweight = {}",
            &["0", "1"],
            &["-1", "2", "65535", "65536"],
        ),
        (
            "name = \"www\"",
            "name = \"{}\"",
            &["n", &longest],
            &["", &too_long],
        ),
        (
            backend,
            "address = \"10.0.0.11:80\"\nname = \"{}\"",
            &["n", &longest],
            &["", &too_long],
        ),
        (
            "name = \"eth0\"",
            "name = \"{}\"",
            &["e", "eth456789012345"],
            &["", "eth4567890123456"],
        ),
        (
            "\"lb\"",
            "\"{}\"",
            &["i", &instance],
            &["", &too_long_instance],
        ),
        (
            "instance = \"lb\"",
            "agent.socket = \"/{}\"",
            &["", &socket],
            &[&too_long_socket],
        ),
        (
            "instance = \"lb\"",
            "data_plane.flow_entries = {}",
            &["1024", "16777216"],
            &["1023", "16777217"],
        ),
        (
            vip,
            "\"{}:80\"",
            &["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255"],
            &[
                "0.0.0.0",
                "0.255.255.255",
                "127.0.0.0",
                "127.255.255.255",
                "224.0.0.0",
                "239.255.255.255",
                "240.0.0.0",
                "240.0.0.1",
                "247.1.2.3",
                "255.255.255.254",
                "255.255.255.255",
            ],
        ),
        (
            backend,
            "address = \"{}:80\"",
            &["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255"],
            &[
                "0.0.0.0",
                "0.255.255.255",
                "127.0.0.0",
                "127.255.255.255",
                "224.0.0.0",
                "239.255.255.255",
                "240.0.0.0",
                "240.0.0.1",
                "247.1.2.3",
                "255.255.255.254",
                "255.255.255.255",
            ],
        ),
    ];
    for (line, key, taken, refused) in cases {
        for value in *taken {
            assert_eq!(
                findings(line, &key.replace("{}", value)),
                "",
                "{key} with {value}"
            );
        }
        for value in *refused {
            let said = findings(line, &key.replace("{}", value));
            assert!(said.contains(": error: "), "{key} with {value}: {said:?}");
        }
    }
}

#[test]
fn a_timeout_is_held_against_its_interval() {
    let said = |timeout: &str| {
        findings(
            "type = \"http\"",
            &format!("type = \"http\"\ninterval = \"100ms\"\ntimeout = \"{timeout}\""),
        )
    };
    assert_eq!(said("100ms"), "", "as long as the interval");
    for (timeout, severity) in [
        ("101ms", "warning"),
        ("1000ms", "warning"),
        ("1001ms", "error"),
    ] {
        let found = said(timeout);
        assert!(
            found.contains(&format!(": {severity}: timeout ")),
            "{timeout}: {found}"
        );
    }
}

#[test]
fn a_file_of_16_mib_is_read_and_no_larger_one() {
    let path = std::env::temp_dir().join(format!("lb-config-size-{}.toml", std::process::id()));
    let mut text = GOOD.as_bytes().to_vec();
    for (size, taken) in [(16 << 20, true), ((16 << 20) + 1, false)] {
        text.resize(size, b'\n');
        std::fs::write(&path, &text).unwrap();
        let loaded = load(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(loaded.is_ok(), taken, "{size} bytes");
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a draft holds an option")]
fn located<T>(value: T) -> Option<Located<T>> {
    Some(Located::new(value, 0..0))
}

/// The backend of this number, at an address of its own.
fn backend(number: usize) -> BackendDraft {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
    BackendDraft {
        name: located(format!("b{number}")),
        address: located(SocketAddr::from((address, 80))),
        weight: located(1),
    }
}

fn pool(number: usize, backends: impl Iterator<Item = usize>) -> PoolDraft {
    PoolDraft {
        name: located(format!("p{number}")),
        check: None,
        backends: backends.map(backend).collect(),
    }
}

/// The service of this number, of the pool of that one.
fn service(number: usize, pool: usize) -> ServiceDraft {
    let port = u16::try_from(number + 1).unwrap();
    ServiceDraft {
        name: located(format!("s{number}")),
        address: located(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port))),
        protocol: Some(Protocol::Tcp),
        pool: located(format!("p{pool}")),
        mode: Some(Mode::Nat),
        scheduler: Some(Scheduler::RoundRobin),
    }
}

fn interface(number: usize) -> InterfaceDraft {
    let name = format!("e{number}");
    InterfaceDraft {
        name: located(name.clone()),
        interface: Some(Interface {
            name,
            mode: AttachMode::Auto,
        }),
    }
}

/// The errors of the rules that look across sections.
fn errors(draft: &Draft) -> Vec<String> {
    let mut report = Report::new("lb.toml", "");
    rules::check(draft, &mut report);
    let findings = report.finish().0.into_iter();
    let errors = findings.filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.message).collect()
}

#[test]
fn interfaces_services_and_backends_are_as_many_as_the_program_has_room_for() {
    let draft = |interfaces: usize, services: usize, backends: usize| Draft {
        interfaces: (0..interfaces).map(interface).collect(),
        pools: vec![pool(0, 0..backends), pool(1, std::iter::once(0))],
        services: (0..services).map(|number| service(number, 1)).collect(),
    };
    let none: [&str; 0] = [];
    assert_eq!(errors(&draft(16, 4_096, 4_096)), none);
    assert_eq!(errors(&draft(17, 1, 1)), ["17 interfaces are too many"]);
    assert_eq!(errors(&draft(1, 4_097, 1)), ["4097 services are too many"]);
    assert_eq!(
        errors(&draft(1, 1, 4_097)),
        ["there are more than 4096 backends"]
    );
}

#[test]
fn the_pools_together_have_131072_members() {
    let draft = |more: usize| Draft {
        pools: (0..32)
            .map(|number| pool(number, 0..4_096))
            .chain((more > 0).then(|| pool(32, 0..more)))
            .collect(),
        ..Draft::default()
    };
    let none: [&str; 0] = [];
    assert_eq!(errors(&draft(0)), none);
    assert_eq!(
        errors(&draft(1)),
        ["the pools together name more than 131072 backends"]
    );
}

#[test]
fn the_services_together_have_131072_backends() {
    let draft = |more: usize| Draft {
        pools: vec![pool(0, 0..4_096), pool(1, std::iter::once(0))],
        services: (0..32)
            .map(|number| service(number, 0))
            .chain((0..more).map(|number| service(32 + number, 1)))
            .collect(),
        ..Draft::default()
    };
    let none: [&str; 0] = [];
    assert_eq!(errors(&draft(0)), none);
    assert_eq!(
        errors(&draft(1)),
        ["the services up to this one have more than 131072 backends, counted in each"]
    );
}
