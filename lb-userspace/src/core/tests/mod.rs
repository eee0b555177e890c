//! The whole core over a data plane of values, in time that stands still until everything waits.

mod losses;
mod patience;
mod redirects;
mod reload;
mod running;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    Handle, StartError,
    host::{Checking, Host},
    inputs::Inputs,
    task::{Core, Parts},
    testing::{address, backend, model},
};
use crate::{
    addresses::{Announcement, Wanted},
    dataplane::fake::Fake,
    health::CheckResult,
    model::{AttachMode, Interface, Model, Pool},
    neighbours::{Error, Link, Observation, Reason, Resolution, Watch},
    plan::{Hop, HopKey, ServiceAddress},
    status::AgentReport,
};

/// What a test sees and sets of the host.
#[derive(Debug, Default)]
struct Network {
    links: BTreeMap<String, u32>,
    forwards_not: bool,
    /// How often its links were made anew.
    made: u32,
    macs: BTreeMap<IpAddr, u8>,
    lost: BTreeSet<IpAddr>,
    /// Interfaces that addresses are behind, where that is not `eth0`.
    behind: BTreeMap<IpAddr, String>,
    probed: Vec<IpAddr>,
    kept: Vec<Option<Wanted>>,
    /// VIPs of an earlier agent, by interface.
    old_vips: BTreeMap<String, Ipv4Addr>,
    /// Such a VIP can't be removed.
    keeps_old_vips: bool,
    checked: Vec<usize>,
    watch: Watch,
}

impl Network {
    fn observe(&self, watch: &Watch) -> Observation {
        let link = |ifindex: &u32| Link {
            ifindex: *ifindex,
            made: self.made,
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            ipv4: None,
            mtu: 1500,
        };
        let way = |address: &IpAddr| {
            if self.lost.contains(address) {
                return Resolution {
                    hop: Hop::Unreachable,
                    source: None,
                    reason: Some(Reason::NotUnicast(*address)),
                };
            }
            let interface = self.behind.get(address).map_or("eth0", String::as_str);
            if !watch.interfaces.contains(interface) {
                return Resolution {
                    hop: Hop::Unreachable,
                    source: None,
                    reason: Some(Reason::OtherInterface {
                        address: *address,
                        interface: interface.to_owned(),
                    }),
                };
            }
            let key = HopKey {
                interface: interface.to_owned(),
                address: *address,
            };
            let mac = [2, 0, 0, 0, 1, self.macs.get(address).copied().unwrap_or(0)];
            Resolution {
                hop: Hop::Known { key, mac },
                source: Some(IpAddr::from([10, 0, 0, 254])),
                reason: None,
            }
        };
        Observation {
            host_forwards: !self.forwards_not,
            links: watch
                .interfaces
                .iter()
                .map(|name| (name.clone(), self.links.get(name).map(link)))
                .collect(),
            ways: watch
                .destinations
                .iter()
                .map(|address| (*address, way(address)))
                .collect(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct FakeHost(Arc<Mutex<Network>>);

impl Host for FakeHost {
    async fn look(&self, watch: Watch) -> Result<Observation, Error> {
        Ok(self.0.lock().unwrap().observe(&watch))
    }

    async fn watch(&self, watch: Watch, _: Duration) -> Result<Observation, Error> {
        let mut network = self.0.lock().unwrap();
        let observation = network.observe(&watch);
        network.watch = watch;
        Ok(observation)
    }

    fn probe(&self, destination: IpAddr) {
        self.0.lock().unwrap().probed.push(destination);
    }

    async fn keep(&mut self, wanted: Option<Wanted>) -> Result<(), Error> {
        self.0.lock().unwrap().kept.push(wanted);
        Ok(())
    }

    async fn forget(&mut self, interfaces: Vec<String>) -> Result<BTreeSet<Ipv4Addr>, Error> {
        let mut network = self.0.lock().unwrap();
        if network.keeps_old_vips {
            return Err(Error::Stopped);
        }
        let old = interfaces.iter();
        let old = old.filter_map(|name| network.old_vips.remove(name));
        Ok(old.collect())
    }
}

impl Checking for FakeHost {
    fn reconfigure(&mut self, pools: &[Pool]) {
        self.0.lock().unwrap().checked.push(pools.len());
    }
}

/// A running core, and all ends of it.
struct Agent {
    plane: Fake,
    host: FakeHost,
    handle: Handle,
    results: mpsc::Sender<CheckResult>,
    observations: mpsc::Sender<Observation>,
    announcements: mpsc::Sender<Announcement>,
}

/// Ends of a core that does not run yet.
struct Setting {
    plane: Fake,
    host: FakeHost,
    results: mpsc::Sender<CheckResult>,
    results_out: mpsc::Receiver<CheckResult>,
}

impl Setting {
    fn new(plane: Fake) -> Self {
        let (results, results_out) = mpsc::channel(64);
        let host = FakeHost::default();
        host.0.lock().unwrap().links.insert("eth0".to_owned(), 2);
        Self {
            plane,
            host,
            results,
            results_out,
        }
    }

    async fn start(self, model: Model) -> Result<Agent, StartError> {
        let Self {
            plane,
            host,
            results,
            results_out,
        } = self;
        let (observations, observations_out) = mpsc::channel(1);
        let (announcements, announcements_out) = mpsc::channel(1);
        let (messages, messages_out) = mpsc::channel(8);
        let mut inputs = Inputs::new(results_out, observations_out, announcements_out, None);
        let report = AgentReport {
            adopted: plane.state().adopted,
            ..AgentReport::default()
        };
        let (model, checks) = (Arc::new(model), Box::new(host.clone()));
        let parts = Parts {
            model,
            checks,
            host: host.clone(),
            plane: Box::new(plane.clone()),
            report,
        };
        let core = Core::new(parts).begin(&mut inputs).await?;
        tokio::spawn(core.run(inputs.with_messages(messages_out)));
        Ok(Agent {
            plane,
            host,
            handle: Handle(messages),
            results,
            observations,
            announcements,
        })
    }
}

/// An agent over two backends that are up.
async fn running(backends: u8) -> Agent {
    let setting = Setting::new(Fake::default());
    for number in 1..=backends {
        setting.results.send(result(number, true)).await.unwrap();
    }
    setting.start(model(backends)).await.unwrap()
}

fn result(number: u8, passed: bool) -> CheckResult {
    CheckResult {
        pool: "web".to_owned(),
        backend: address(number),
        outcome: if passed {
            Ok(())
        } else {
            Err("refused".into())
        },
        duration: Duration::from_millis(1),
    }
}

impl Agent {
    fn rotation(&self) -> Vec<SocketAddr> {
        rotation(&self.plane, &model(0))
    }

    async fn fail(&self, number: u8) {
        for _ in 0..3 {
            self.results.send(result(number, false)).await.unwrap();
        }
        self.settle().await;
    }

    /// Waits until everything that was sent is dealt with.
    async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
        self.handle.ping().await.unwrap();
    }

    async fn network_changed(&self) {
        let observation = {
            let network = self.host.0.lock().unwrap();
            network.observe(&network.watch)
        };
        self.observations.send(observation).await.unwrap();
        self.settle().await;
    }
}

fn rotation(plane: &Fake, model: &Model) -> Vec<SocketAddr> {
    let state = plane.state();
    let service = ServiceAddress {
        address: model.services[0].address,
        protocol: model.services[0].protocol,
    };
    state
        .tables
        .service_in_force(service)
        .map(|(_, row)| state.tables.rotation(row))
        .unwrap_or_default()
}
