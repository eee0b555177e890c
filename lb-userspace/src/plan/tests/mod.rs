//! What a plan does in each case an operator meets.

mod backends;
mod network;
mod salvage;
mod services;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lb_common::abi::{
    BackendId, InterfaceRow, InterfaceSlot, MAX_BACKENDS, MAX_SLOTS, Mode, Protocol, Scheduler,
    ServiceId, ServiceRow,
    word::{BackendState, SlotRange, Way},
};

use super::{
    Actual, Book, Change, Desired, GRACE, Hop, HopKey, Interface, References, Refusal, Salvage,
    Service, ServiceAddress, plan,
};

fn backend(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 80))
}

fn www() -> ServiceAddress {
    ServiceAddress {
        address: SocketAddr::from(([192, 0, 2, 10], 80)),
        protocol: Protocol::Tcp,
    }
}

fn service(pool: &str) -> Service {
    Service {
        mode: Mode::Nat,
        scheduler: Scheduler::RoundRobin,
        pool: pool.to_owned(),
    }
}

fn interface(ifindex: u32) -> Interface {
    Interface {
        ifindex,
        mac: [2, 0, 0, 0, 0, 1],
        ipv4: None,
        mtu: 1_500,
    }
}

fn on_link(number: u16, mac: u8) -> (IpAddr, Hop) {
    let key = HopKey {
        interface: "eth0".to_owned(),
        address: backend(number).ip(),
    };
    (
        backend(number).ip(),
        Hop::Known {
            key,
            mac: [2, 0, 0, 0, 1, mac],
        },
    )
}

fn through(gateway: u8, mac: u8) -> Hop {
    let key = HopKey {
        interface: "eth0".to_owned(),
        address: IpAddr::from([10, 0, 0, gateway]),
    };
    Hop::Known {
        key,
        mac: [2, 0, 0, 0, 2, mac],
    }
}

/// One service over backends 1 to `count`, all up and on-link.
fn desired(count: u16) -> Desired {
    Desired {
        ticks_per_second: 250,
        interfaces: [("eth0".to_owned(), interface(2))].into(),
        services: [(www(), service("web"))].into(),
        pools: [("web".to_owned(), (1..=count).map(backend).collect())].into(),
        backends: (1..=count).map(backend).collect(),
        hops: (1..=count).map(|number| on_link(number, 1)).collect(),
        ..Desired::default()
    }
}

/// A balancer on which time passes.
struct Balancer {
    actual: Actual,
    now: Instant,
}

impl Balancer {
    fn new() -> Self {
        Self {
            actual: Actual::default(),
            now: Instant::now(),
        }
    }

    /// Plans and applies; gives the changes.
    fn reconcile(&mut self, desired: &Desired) -> Vec<Change> {
        let plan = plan(desired, &self.actual, self.now);
        assert_eq!(plan.refused, []);
        self.take(plan)
    }

    fn take(&mut self, plan: super::Plan) -> Vec<Change> {
        for change in &plan.changes {
            self.actual.tables.apply(change);
        }
        self.actual.book = plan.book;
        plan.changes
    }

    /// A scan of the flow table that finds these backends referred to.
    fn scan(&mut self, backends: &[BackendId]) {
        let found = References {
            started: self.now,
            backends: backends.iter().copied().collect(),
            services: BTreeSet::new(),
            interfaces: BTreeSet::new(),
        };
        self.actual.book.scanned(&found);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Two clean scans far enough apart.
    fn settle(&mut self, desired: &Desired) {
        self.scan(&[]);
        self.wait(GRACE);
        self.scan(&[]);
        self.reconcile(desired);
    }

    fn row(&self, address: SocketAddr) -> Option<(BackendId, BackendState)> {
        self.actual
            .tables
            .tenants()
            .find(|(_, tenant, _)| *tenant == address)
            .map(|(id, _, state)| (id, state))
    }

    fn rotation(&self) -> Vec<SocketAddr> {
        let (_, row) = self.actual.tables.service_in_force(www()).unwrap();
        self.actual.tables.rotation(row)
    }

    fn way(&self, address: SocketAddr) -> Way {
        let (id, _) = self.row(address).unwrap();
        self.actual.tables.backends[&id].way()
    }
}
