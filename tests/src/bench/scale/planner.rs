//! The planner by itself: desired state and tables in, changes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Result, ensure};
use lb_common::abi::{Mode, Protocol, Scheduler};
use lb_userspace::plan::{
    Actual, Desired, Hop, HopKey, Interface, Service, ServiceAddress, Tables, plan,
};

/// Backends of a pool, and services that share one.
const POOL: u16 = 16;

/// Milliseconds to plan the change of one backend, once a run.
pub(super) fn times(size: u16, runs: usize) -> Result<Vec<f64>> {
    let (before, after) = (desired(size, 0), desired(size, 1));
    let now = Instant::now();
    let first = plan(&before, &Actual::default(), now);
    ensure!(first.refused.is_empty(), "{:?}", first.refused.first());
    let mut tables = Tables::default();
    for change in &first.changes {
        tables.apply(change);
    }
    let actual = Actual {
        tables,
        book: first.book,
    };
    let mut times = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        let planned = plan(&after, &actual, now);
        times.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(
            !planned.changes.is_empty() && planned.refused.is_empty(),
            "{:?}",
            planned.refused
        );
    }
    Ok(times)
}

fn desired(size: u16, moved: u16) -> Desired {
    let backend = |number: u16| {
        let net = if number < moved { 65 } else { 64 };
        SocketAddr::new(host(net, number), 8_080)
    };
    let service = |number: u16| {
        let address = ServiceAddress {
            address: SocketAddr::new(host(96, number), 80),
            protocol: Protocol::Tcp,
        };
        let service = Service {
            mode: Mode::Nat,
            scheduler: Scheduler::RoundRobin,
            pool: format!("pool{}", number / POOL),
        };
        (address, service)
    };
    let mut pools: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    for number in 0..size {
        let pool = format!("pool{}", number / POOL);
        pools.entry(pool).or_default().push(backend(number));
    }
    let hop = Hop::Known {
        key: HopKey {
            interface: "eth0".to_owned(),
            address: Ipv4Addr::new(10, 2, 0, 11).into(),
        },
        mac: [2, 0, 0, 0, 0, 11],
    };
    let interface = Interface {
        ifindex: 2,
        ..Interface::default()
    };
    Desired {
        host_forwards: true,
        ticks_per_second: 250,
        flow_seed: 1,
        interfaces: [("eth0".to_owned(), interface)].into(),
        services: (0..size).map(service).collect(),
        pools,
        backends: (0..size).map(backend).collect(),
        hops: (0..size)
            .map(|number| (backend(number).ip(), hop.clone()))
            .collect(),
    }
}

fn host(net: u8, number: u16) -> IpAddr {
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, net, high, low).into()
}
