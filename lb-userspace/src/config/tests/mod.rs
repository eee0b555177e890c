//! Each bad file beside exactly what is said about it.

mod edges;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{
    AttachMode, Backend, Check, CheckKind, Interface, Mode, Pool, Protocol, Scheduler, Service,
};

/// A file without findings, which the cases edit.
const GOOD: &str = r#"instance = "lb"
[[interface]]
name = "eth0"
[[pool]]
name = "web"
[pool.check]
type = "http"
[[pool.backend]]
address = "10.0.0.11:80"
[[pool.backend]]
address = "10.0.0.12:80"
[[service]]
name = "www"
address = "192.0.2.10:80"
protocol = "tcp"
pool = "web"
"#;

const EXAMPLE: &str = include_str!("../../../examples/lb.toml");

/// See its first line.
const CASES: &str = include_str!("cases.txt");

#[derive(Default)]
struct Case {
    behaviour: String,
    old: Vec<&'static str>,
    new: Vec<&'static str>,
    findings: Vec<&'static str>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in CASES.lines().skip(1).filter(|line| !line.is_empty()) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "#" {
            cases.push(Case {
                behaviour: rest.to_owned(),
                ..Case::default()
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with #");
        match mark {
            "-" => case.old.push(rest),
            "+" => case.new.push(rest),
            ">" => case.findings.push(rest),
            _ => panic!("{}: what is {line:?}?", case.behaviour),
        }
    }
    cases
}

/// What is said about [`GOOD`] with `old` replaced by `new`.
fn findings(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "nothing to replace: {old}");
    let text = GOOD.replacen(old, new, 1);
    parse(&text, "lb.toml")
        .map_or_else(|findings| findings, |checked| checked.warnings)
        .to_string()
}

#[test]
fn every_fault_is_named_with_its_place_and_help() {
    let cases = cases();
    assert!(cases.len() > 70, "only {} cases", cases.len());
    for case in cases {
        let found = findings(&case.old.join("\n"), &case.new.join("\n"));
        assert_eq!(found, case.findings.join("\n"), "{}", case.behaviour);
    }
}

#[test]
fn what_a_file_holds_does_not_steer_the_terminal() {
    let found = findings(
        "name = \"www\"",
        "name = \"\\u001b[31m\"\n\"\\u001b[32m\" = 1 # \u{1b}[33m",
    );
    assert!(!found.contains('\u{1b}'), "{found:?}");
}

#[test]
fn a_carriage_return_ends_a_line_too() {
    let found = findings("name = \"www\"\n", "name = \"w w\"\r\n");
    assert!(
        found.contains("13 | name = \"w w\"\n      |        ^^^^^\n"),
        "{found}"
    );
}

#[test]
fn the_example_names_every_key_and_is_accepted() {
    let checked = parse(EXAMPLE, "lb.toml").unwrap();
    assert_eq!(checked.warnings, Diagnostics::default());
    for key in SECTIONS.iter().flat_map(|(_, keys)| *keys) {
        let uncommented = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ', '[']);
            line.starts_with(key) || line.starts_with(&format!("pool.{key}"))
        });
        assert!(uncommented, "the example does not name `{key}`");
    }
}

#[test]
fn the_defaults_that_the_example_shows_are_the_defaults() {
    let uncomment = |line: &'static str| {
        let setting = line.trim_start().strip_prefix("# ").unwrap_or(line);
        let is_one = setting.contains(" = ") || setting.starts_with('[');
        if is_one { setting } else { line }
    };
    let shown = EXAMPLE
        .lines()
        .map(uncomment)
        .collect::<Vec<_>>()
        .join("\n");
    let shown = shown.replace("port = 8080 ", "");
    assert_ne!(shown, EXAMPLE);
    assert_eq!(
        parse(&shown, "lb.toml").unwrap(),
        parse(EXAMPLE, "lb.toml").unwrap()
    );
}

#[test]
fn every_setting_reaches_the_model() {
    let text = r#"
        instance = "edge-1"
        manage_addresses = true
        [agent]
        ready_when = "all-services"
        pin_root = "/tmp/bpf"
        [metrics]
        listen = "[::1]:9850"
        [data_plane]
        log = "debug"
        flow_entries = 1_024
        [[interface]]
        name = "eth0"
        mode = "generic"
        [[pool]]
        name = "web"
        check = { type = "http", interval = "2s", timeout = "250ms", rise = 1, fall = 5, port = 8080, path = "/h?x=1", host = "a.example:81", expect = [204, "300-399"] }
        backend = [{ address = "10.0.0.11:80", name = "web1", weight = 0 }, { address = "10.0.0.12:81" }]
        [[service]]
        name = "www"
        address = "192.0.2.10:65535"
        protocol = "udp"
        pool = "web"
        mode = "nat"
        scheduler = "round-robin"
    "#;
    let Checked { model, warnings } = parse(text, "lb.toml").unwrap();
    assert_eq!(warnings, Diagnostics::default());
    let kind = CheckKind::Http {
        path: "/h?x=1".into(),
        host: Some("a.example:81".into()),
        expect: vec![(204, 204), (300, 399)],
    };
    let check = Check {
        kind,
        interval: Duration::from_secs(2),
        timeout: Duration::from_millis(250),
        rise: 1,
        fall: 5,
        port: Some(8080),
    };
    let backend = |name: &str, address: &str, weight| Backend {
        name: name.into(),
        address: address.parse().unwrap(),
        weight,
    };
    let wanted = Model {
        instance: "edge-1".into(),
        manage_addresses: true,
        pin_root: "/tmp/bpf".into(),
        socket: "/run/lb/edge-1.sock".into(),
        ready_when: ReadyWhen::AllServices,
        metrics: Some("[::1]:9850".parse().unwrap()),
        data_plane: DataPlane {
            log: DataPlaneLog::Debug,
            flow_entries: 1024,
        },
        interfaces: vec![Interface {
            name: "eth0".into(),
            mode: AttachMode::Generic,
        }],
        pools: vec![Pool {
            name: "web".into(),
            check: Some(check),
            backends: vec![
                backend("web1", "10.0.0.11:80", 0),
                backend("10.0.0.12:81", "10.0.0.12:81", 1),
            ],
        }],
        services: vec![Service {
            name: "www".into(),
            address: "192.0.2.10:65535".parse().unwrap(),
            protocol: Protocol::Udp,
            pool: "web".into(),
            mode: Mode::Nat,
            scheduler: Scheduler::RoundRobin,
        }],
    };
    assert_eq!(model, wanted);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let findings = load(Path::new("/nonexistent/lb.toml")).unwrap_err();
    assert_eq!(
        findings.to_string(),
        "/nonexistent/lb.toml: error: can't be read: No such file or directory (os error 2)\n   help: check the path"
    );
    let findings = load(Path::new("/")).unwrap_err();
    assert_eq!(
        findings.to_string(),
        "/: error: can't be read: Is a directory (os error 21)\n   help: give the path of a readable file"
    );
    let findings = load(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(
        findings.to_string(),
        "/dev/zero: error: is larger than 16 MiB\n   help: give the path of a configuration"
    );
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let path = std::env::temp_dir().join(format!("lb-config-{}.toml", std::process::id()));
    std::fs::write(&path, b"instance = \"lb\"\n# \xff\n").unwrap();
    let findings = load(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        findings.to_string(),
        format!(
            "{}: error: line 2 is not UTF-8\n   help: save the file as UTF-8",
            path.display()
        )
    );
}

#[test]
fn a_finding_is_an_object_for_programs() {
    let findings = parse(
        &GOOD.replacen("192.0.2.10:80", "192.0.2.10:70000", 1),
        "lb.toml",
    )
    .unwrap_err();
    assert_eq!(
        serde_json::to_value(&findings.0).unwrap(),
        serde_json::json!([{
            "severity": "error",
            "file": "lb.toml",
            "line": 14,
            "column": 11,
            "end_column": 29,
            "text": "address = \"192.0.2.10:70000\"",
            "message": "port 70000 is out of range",
            "help": "use a port from 1 to 65535",
        }])
    );
}

#[test]
fn many_warnings_of_one_kind_are_told_once() {
    let service = |number: u16| {
        format!(
            "[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\naddress = \"192.0.2.1:{number}\"\npool = \"web\"\n"
        )
    };
    let warnings = |services: u16| {
        let text = GOOD.to_owned() + &(1..=services).map(service).collect::<String>();
        parse(&text, "lb.toml").unwrap().warnings
    };
    // Of a few each is named.
    assert_eq!(warnings(3).lines().len(), 3);
    let many = warnings(1_000);
    assert_eq!(many.count(Severity::Warning), 1_000, "for programs");
    assert_eq!(many.lines(), [many.to_string()]);
    assert_eq!(
        many.to_string(),
        "lb.toml:21:8: warning: services \"www\" and \"s1\" share the backend 10.0.0.11:80 and 1 more; 999 more \
         warnings are of this kind, which `lb check --json` names\n   21 | pool = \"web\"\n      |        ^^^^^\n   \
         help: in mode \"nat\" a client that uses one port for both collides with itself there; give each service \
         its own backend port"
    );
}

#[test]
fn errors_and_other_warnings_stand_beside_a_group() {
    let warning = |number: usize| {
        format!(
            "[[pool]]\nname = \"spare{number}\"\nbackend = [{{ address = \"10.0.1.{number}:80\" }}]\n"
        )
    };
    let pools: String = (1..=9).map(warning).collect();
    let text = GOOD.to_owned() + &pools + "[[pool]]\nname = \"a b\"\n[[pool]]\nname = \"c d\"\n";
    let findings = parse(&text, "lb.toml").unwrap_err();
    let lines = findings.lines();
    let starts: Vec<_> = lines
        .iter()
        .map(|line| line.split(" is ").next().unwrap())
        .collect();
    assert_eq!(findings.count(Severity::Warning), 9);
    assert_eq!(lines.len(), 5, "{starts:#?}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        drop(parse(&text, "lb.toml"));
    }

    #[test]
    fn no_damage_to_a_file_makes_it_panic(
        from in 0..EXAMPLE.len(),
        length in 0..40_usize,
        insert in "[\\[\\]=\"'{}#.,\\-0-9a-zé\t\r\n ]{0,12}",
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (from + length).min(bytes.len());
        bytes.splice(from..end, insert.bytes());
        match parse(&String::from_utf8_lossy(&bytes), "lb.toml") {
            Ok(checked) => prop_assert!(!checked.warnings.has_errors()),
            Err(findings) => {
                prop_assert!(findings.has_errors());
                for finding in findings.0 {
                    prop_assert!(!finding.message.is_empty() && !finding.help.is_empty());
                    prop_assert!(finding.to_string().contains("help: "));
                }
            }
        }
    }

    #[test]
    fn what_a_duration_says_is_what_it_is(millis in 1_u64..=3_600_000) {
        prop_assert_eq!(value::duration(&format!("{millis}ms")).unwrap(), Duration::from_millis(millis));
    }
}
