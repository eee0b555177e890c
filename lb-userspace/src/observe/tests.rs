//! Reports of a data plane of values.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use lb_common::{
    abi::{FlowCounters, Mode, Protocol, Scheduler, ServiceId, ServiceRow},
    verdict::{DropReason, Verdict},
};

use super::{BackendHealth, Known, KnownInterface, Observer};
use crate::{
    core::testing::{address, model},
    dataplane::{Dataplane, Target, fake::Fake},
    model::{self, AttachMode, Model},
    neighbours::Resolution,
    nic::{Nic, Peer},
    plan::{Actual, Desired, Hop, HopKey, Interface, Service, ServiceAddress, plan},
    status::AgentReport,
};

/// A data plane with the service of [`model`] over backends 1 and 2, of which 1 is in rotation.
fn in_force() -> Fake {
    let service = &model(2).services[0];
    let at = ServiceAddress {
        address: service.address,
        protocol: service.protocol,
    };
    let wanted = Service {
        mode: Mode::Nat,
        scheduler: Scheduler::RoundRobin,
        pool: "web".to_owned(),
    };
    let key = HopKey {
        interface: "eth0".to_owned(),
        address: address(1).ip(),
    };
    let desired = Desired {
        interfaces: [(
            "eth0".to_owned(),
            Interface {
                ifindex: 2,
                ..Interface::default()
            },
        )]
        .into(),
        services: [(at, wanted)].into(),
        pools: [("web".to_owned(), vec![address(1)])].into(),
        backends: [address(1), address(2)].into(),
        hops: [(
            address(1).ip(),
            Hop::Known {
                key,
                mac: [2, 0, 0, 0, 0, 0xaf],
            },
        )]
        .into(),
        ..Desired::default()
    };
    let mut fake = Fake::default();
    for change in plan(&desired, &Actual::default(), Instant::now()).changes {
        fake.apply(&change).unwrap();
    }
    let target = Target {
        name: "eth0".to_owned(),
        ifindex: 2,
        mode: AttachMode::Auto,
        anew: false,
    };
    fake.attach(&target).unwrap();
    fake
}

fn known(backends: u8) -> Known {
    let health = BackendHealth {
        state: "up",
        reason: "check passed".to_owned(),
        since: SystemTime::UNIX_EPOCH,
        checks: None,
    };
    let key = HopKey {
        interface: "eth0".to_owned(),
        address: address(1).ip(),
    };
    let way = Resolution {
        hop: Hop::Keep { key: Some(key) },
        source: Some(IpAddr::from([10, 0, 0, 254])),
        reason: None,
    };
    Known {
        model: Arc::new(model(backends)),
        agent: AgentReport::default(),
        interfaces: vec![KnownInterface {
            name: "eth0".to_owned(),
            ifindex: Some(2),
            reason: None,
            notice: None,
        }],
        health: BTreeMap::from([(("web".to_owned(), address(1)), health)]),
        refused_vips: BTreeMap::new(),
        ways: BTreeMap::from([(address(1).ip(), way)]),
    }
}

fn report(fake: &Fake, known: &Known) -> crate::status::StatusReport {
    Observer::new(fake.readings(), 250).report(known, Instant::now(), SystemTime::UNIX_EPOCH)
}

#[test]
fn a_report_says_what_the_maps_say() {
    let fake = in_force();
    let report = report(&fake, &known(2));
    let service = &report.services[0];
    assert_eq!(
        (
            service.protocol.as_str(),
            service.mode.as_str(),
            service.scheduler.as_str()
        ),
        ("tcp", "nat", "round-robin")
    );
    let [first, second] = &service.backends[..] else {
        panic!("{:?}", service.backends)
    };
    assert_eq!((first.state.as_str(), first.in_rotation), ("up", true));
    assert_eq!(first.next_hop.as_deref(), Some("02:00:00:00:00:af"));
    assert_eq!(first.since, "1970-01-01T00:00:00.000000Z");
    assert_eq!(
        (second.in_rotation, second.next_hop.as_deref()),
        (false, None)
    );
    assert_eq!(report.interfaces[0].mode, "native");
    assert_eq!(report.flow_table.capacity, 4_096);
}

#[test]
fn what_is_not_in_force_is_not_claimed() {
    let fake = in_force();
    fake.state().tables.keys.clear();
    fake.state().links.clear();
    let report = report(&fake, &known(2));
    assert!(
        report.services[0]
            .backends
            .iter()
            .all(|backend| !backend.in_rotation)
    );
    assert_eq!(report.interfaces[0].mode, "detached");
}

#[test]
fn what_the_driver_loses_from_the_attachment_on_is_told() {
    let fake = in_force();
    let count = |drops, sent| {
        let counters = [("tx_xdp_tx_drops", drops), ("tx_xdp_tx", sent)];
        let counters = counters.map(|(name, count)| (name.to_owned(), count));
        let mut state = fake.state();
        state
            .driver_counters
            .insert("eth0".to_owned(), counters.into());
    };
    let observer = Observer::new(fake.readings(), 250);
    let interface = || {
        let report = observer.report(&known(2), Instant::now(), SystemTime::now());
        report.interfaces[0].clone()
    };
    count(5, 100);
    observer.attaching("eth0");
    count(5, 200);
    assert!(interface().driver_losses.is_empty(), "{:?}", interface());
    assert_eq!(interface().driver_counters["tx_xdp_tx"], 200);
    count(12, 300);
    let lost = [("tx_xdp_tx_drops".to_owned(), 7)];
    assert_eq!(interface().driver_losses, lost.into());
    observer.attaching("eth0");
    assert!(interface().driver_losses.is_empty(), "{:?}", interface());
}

#[test]
fn what_costs_packets_is_told_for_as_long_as_it_is_so() {
    let fake = in_force();
    let peer = |has_program| {
        let nic = Nic {
            driver: "veth".to_owned(),
            peer: Some(Peer::Here {
                name: "v1".to_owned(),
                mtu: 1500,
                has_program,
                gro: true,
                tx_checksum: false,
            }),
            ..Nic::default()
        };
        fake.state().nics.insert(2, nic);
    };
    let observer = Observer::new(fake.readings(), 250);
    let notices = || {
        let report = observer.report(&known(2), Instant::now(), SystemTime::now());
        report.interfaces[0].notices.clone()
    };
    peer(false);
    assert!(
        notices()[0].contains("v1 has no XDP program"),
        "{:?}",
        notices()
    );
    peer(true);
    assert_eq!(notices(), [""; 0]);
}

#[test]
fn every_verdict_and_reason_has_its_row() {
    let fake = in_force();
    fake.state().counters.2 = BTreeMap::from([
        (Verdict::Redirect.index(), 7),
        (Verdict::Drop(DropReason::NoBackend).index(), 3),
    ]);
    let report = report(&fake, &known(2));
    assert_eq!(report.verdicts.len(), Verdict::FORWARDED.len());
    assert_eq!(report.drops.len(), DropReason::ALL.len());
    assert_eq!(
        (
            report.verdicts["redirect"],
            report.drops["no_backend"],
            report.verdicts["pass"]
        ),
        (7, 3, 0)
    );
}

#[test]
fn removed_backends_and_services_are_shown_while_they_hold_flows() {
    let fake = in_force();
    let (service, backend) = {
        let state = fake.state();
        let service = state.tables.owners().next().unwrap().0;
        (
            service,
            state
                .tables
                .tenants()
                .find(|(_, tenant, _)| *tenant == address(2))
                .unwrap()
                .0,
        )
    };
    fake.state()
        .census
        .active
        .insert((service.get(), backend.get()), 5);
    let one = report(&fake, &known(1));
    let removed = &one.services[0].backends[1];
    assert_eq!(
        (
            removed.state.as_str(),
            removed.active_flows,
            one.services[0].active_flows
        ),
        ("removed", 5, 5)
    );
    let mut without = known(1);
    without.model = Arc::new(crate::model::Model {
        services: Vec::new(),
        ..model(1)
    });
    let none = report(&fake, &without);
    assert!(none.services[0].removed && none.services[0].name == "192.0.2.10:80/tcp");
    fake.state().census.active.clear();
    assert!(report(&fake, &without).services.is_empty());
}

#[test]
fn what_is_configured_is_not_shown_as_removed_too() {
    let fake = in_force();
    fake.state().census.active = [((1, 1), 3)].into();
    let report = report(&fake, &known(2));
    assert_eq!(report.services.len(), 1);
    assert_eq!(report.services[0].active_flows, 3);
    assert_eq!(report.services[0].backends.len(), 2);
}

#[test]
fn an_interface_is_shown_as_it_is_and_not_as_it_was_attached() {
    let fake = in_force();
    let eth0 = |known: &Known| {
        let row = report(&fake, known).interfaces[0].clone();
        (row.mode, row.reason)
    };
    assert_eq!(eth0(&known(2)), ("native".to_owned(), None));
    fake.state().generic.insert("eth0".to_owned());
    let mut down = known(2);
    down.interfaces[0].reason = Some("the interface is down".to_owned());
    assert_eq!(
        eth0(&down),
        ("generic".to_owned(), down.interfaces[0].reason.clone())
    );
    fake.state().outdated.insert("eth0".to_owned());
    let other = "the XDP program 2 runs there".to_owned();
    assert_eq!(eth0(&known(2)), ("detached".to_owned(), Some(other)));
    assert_eq!(
        eth0(&down).1,
        down.interfaces[0].reason,
        "what the core knows comes first"
    );
}

#[test]
fn rates_are_taken_between_samples() {
    let fake = in_force();
    let service = fake.state().tables.owners().next().unwrap().0;
    let observer = Observer::new(fake.readings(), 250);
    let start = Instant::now();
    observer.sample(start);
    let counters = FlowCounters {
        forward_packets: 30,
        forward_bytes: 3_000,
        reverse_packets: 10,
        reverse_bytes: 700,
        new_flows: 4,
        ..FlowCounters::default()
    };
    fake.state().counters.0.insert(service.get(), counters);
    let report = observer.report(
        &known(2),
        start + Duration::from_secs(2),
        SystemTime::UNIX_EPOCH,
    );
    let traffic = report.services[0].traffic;
    assert_eq!((traffic.forward_packets, traffic.new_flows), (30, 4));
    assert_eq!((traffic.forward_bytes, traffic.reverse_bytes), (3_000, 700));
    assert_eq!(traffic.reverse_packets, 10);
    assert!((traffic.bytes_per_second - 1_850.0).abs() < 1e-9);
    assert!(
        (traffic.packets_per_second - 20.0).abs() < 1e-9
            && (traffic.new_flows_per_second - 2.0).abs() < 1e-9
    );
}

/// Like [`known`], with a second service at another VIP.
fn with_a_second_service(pool: &str, protocol: Protocol) -> Known {
    let mut known = known(2);
    let mut model = Model::clone(&known.model);
    model.services.push(model::Service {
        name: "second".to_owned(),
        address: "192.0.2.11:80".parse().unwrap(),
        protocol,
        pool: pool.to_owned(),
        ..model.services[0].clone()
    });
    let mut other = model.pools[0].clone();
    other.name = "other".to_owned();
    other.backends.remove(0);
    model.pools.push(other);
    known.model = Arc::new(model);
    known
}

#[test]
fn no_pair_claims_the_packets_of_a_backend_that_two_services_use() {
    let fake = in_force();
    let counters = |forward_packets| FlowCounters {
        forward_packets,
        ..FlowCounters::default()
    };
    fake.state().counters.1 = BTreeMap::from([(1, counters(70)), (2, counters(30))]);
    let packets = |report: &crate::status::StatusReport| {
        let rows = report.services.iter().map(|service| {
            let backends = service.backends.iter();
            let packets = backends.map(|row| row.traffic.map(|traffic| traffic.forward_packets));
            packets.collect::<Vec<_>>()
        });
        let shared = report.shared_backends.iter().map(|row| {
            let services = row.services.join(" ");
            (row.address.clone(), services, row.traffic.forward_packets)
        });
        (rows.collect::<Vec<_>>(), shared.collect::<Vec<_>>())
    };
    let alone = report(&fake, &known(2));
    assert_eq!(packets(&alone), (vec![vec![Some(70), Some(30)]], vec![]));

    // One backend of the two is of a second service too.
    let half = report(&fake, &with_a_second_service("other", Protocol::Tcp));
    let second = ("10.0.0.2:80".to_owned(), "www second".to_owned(), 30);
    let expected = (vec![vec![Some(70), None], vec![None]], vec![second.clone()]);
    assert_eq!(packets(&half), expected);

    let whole = report(&fake, &with_a_second_service("web", Protocol::Tcp));
    let first = ("10.0.0.1:80".to_owned(), "www second".to_owned(), 70);
    let expected = (vec![vec![None, None]; 2], vec![first, second]);
    assert_eq!(packets(&whole), expected);
}

/// What is said of the first backend after seven seconds in which each brought it a flow and no reply.
fn after_silence(fake: &Fake, known: &Known) -> Option<crate::status::NoRepliesReport> {
    after_silence_of(&Observer::new(fake.readings(), 250), fake, known)
}

fn after_silence_of(
    observer: &Observer,
    fake: &Fake,
    known: &Known,
) -> Option<crate::status::NoRepliesReport> {
    let start = Instant::now();
    let mut counters = FlowCounters::default();
    for second in 0..8 {
        counters.new_flows = second;
        counters.forward_packets = second;
        fake.state().counters.1.insert(1, counters);
        observer.sample(start + Duration::from_secs(second));
    }
    let (now, time) = (start + Duration::from_secs(7), Duration::from_secs(1_000));
    let report = observer.report(known, now, SystemTime::UNIX_EPOCH + time);
    report.services[0].backends[0].no_replies.clone()
}

#[test]
fn a_backend_that_is_up_and_never_replies_is_named_with_the_command_that_helps() {
    let fake = in_force();
    let missing = after_silence(&fake, &known(2)).unwrap();
    assert_eq!(
        (missing.since.as_str(), missing.new_flows),
        ("1970-01-01T00:16:34.000000Z", 7)
    );
    let command = "on the server `ip route replace default via 10.0.0.254`";
    assert_eq!(missing.help, command);

    // It may as well be the way there.
    let losing = in_force();
    let observer = Observer::new(losing.readings(), 250);
    observer.attaching("eth0");
    let lost = [("rx_queue_0_drops".to_owned(), 7)];
    let counters = ("eth0".to_owned(), lost.into());
    losing.state().driver_counters.extend([counters]);
    let missing = after_silence_of(&observer, &losing, &known(2)).unwrap();
    assert_eq!(
        missing.help,
        format!("{command}; or the driver of eth0 loses packets on the way there, see below")
    );

    let mut unchecked = known(2);
    unchecked
        .health
        .values_mut()
        .for_each(|health| health.state = "unchecked");
    let missing = after_silence(&fake, &unchecked).unwrap();
    assert_eq!(missing.help, format!("if it is alive, {command}"));
}

#[test]
fn a_backend_that_need_not_reply_or_has_a_better_reason_is_not_blamed() {
    let fake = in_force();
    for state in ["down", "checking"] {
        let mut known = known(2);
        known
            .health
            .values_mut()
            .for_each(|health| health.state = state);
        assert_eq!(after_silence(&fake, &known), None, "{state}");
    }
    let with_tcp = with_a_second_service("web", Protocol::Tcp);
    assert!(after_silence(&fake, &with_tcp).is_some());
    let with_udp = with_a_second_service("web", Protocol::Udp);
    assert_eq!(after_silence(&fake, &with_udp), None);
    assert!(
        after_silence(&fake, &with_a_second_service("other", Protocol::Udp)).is_some(),
        "UDP goes to another backend"
    );

    // A removed service of UDP still holds flows there.
    {
        let services = &mut fake.state().tables.services;
        let row = *services.values().next().unwrap();
        let protocol = Protocol::Udp as u8;
        let id = ServiceId::new(9).unwrap();
        services.insert(id, ServiceRow { protocol, ..row });
    }
    assert!(after_silence(&fake, &known(2)).is_some());
    fake.state().census.active.insert((9, 1), 1);
    assert_eq!(after_silence(&fake, &known(2)), None);
    fake.state().census.active.clear();

    fake.state()
        .tables
        .backends
        .values_mut()
        .for_each(|row| row.way = 0);
    assert_eq!(
        after_silence(&fake, &known(2)),
        None,
        "no way to it is known"
    );
}

#[test]
fn the_flow_table_is_not_counted_more_often_than_needed() {
    let fake = in_force();
    let observer = Observer::new(fake.readings(), 250);
    let start = Instant::now();
    let entries = |after: u64| {
        let now = start + Duration::from_millis(after);
        observer
            .report(&known(2), now, SystemTime::UNIX_EPOCH)
            .flow_table
            .entries
    };
    assert_eq!(entries(0), 0);
    fake.state().census.entries = 9;
    assert_eq!(entries(1_900), 0);
    assert_eq!(entries(2_100), 9);
}

#[test]
fn references_are_counted_afresh() {
    let fake = in_force();
    let observer = Observer::new(fake.readings(), 250);
    let now = Instant::now();
    assert!(observer.references(now).unwrap().backends.is_empty());
    fake.state().census.backend_references.insert(3, 1);
    fake.state().census.service_references.insert(4, 1);
    fake.state().census.interface_references = [(0, 1), (2, 1)].into();
    let found = observer.references(now).unwrap();
    assert_eq!(
        (
            found.backends.len(),
            found.services.len(),
            found.interfaces.len()
        ),
        (1, 1, 1)
    );
}
