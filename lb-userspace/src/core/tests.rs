//! The whole core over a data plane of values, in time that stands still until everything waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use lb_common::abi::{BackendId, word::BackendState};
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
    macs: BTreeMap<IpAddr, u8>,
    lost: BTreeSet<IpAddr>,
    probed: Vec<IpAddr>,
    kept: Vec<Option<Wanted>>,
    checked: Vec<usize>,
    watch: Watch,
}

impl Network {
    fn observe(&self, watch: &Watch) -> Observation {
        let link = |ifindex: &u32| Link {
            ifindex: *ifindex,
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            ipv4: None,
            mtu: 1500,
        };
        let way = |address: &IpAddr| {
            if self.lost.contains(address) {
                return Resolution {
                    hop: Hop::Unreachable,
                    reason: Some(Reason::NotUnicast(*address)),
                };
            }
            let key = HopKey {
                interface: "eth0".to_owned(),
                address: *address,
            };
            let mac = [2, 0, 0, 0, 1, self.macs.get(address).copied().unwrap_or(0)];
            Resolution {
                hop: Hop::Known { key, mac },
                reason: None,
            }
        };
        Observation {
            host_forwards: true,
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
        let inputs = Inputs::new(
            messages_out,
            results_out,
            observations_out,
            announcements_out,
            None,
        );
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
        let task = Core::new(parts).begin(inputs).await?;
        tokio::spawn(task);
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
            Err("refused".to_owned())
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

#[tokio::test(start_paused = true)]
async fn a_cold_start_is_ready_with_every_backend_checked_once() {
    let setting = Setting::new(Fake::default());
    let results = setting.results.clone();
    let checks = tokio::spawn(async move {
        sleep(Duration::from_millis(80)).await;
        results.send(result(1, true)).await.unwrap();
        results.send(result(2, false)).await.unwrap();
    });
    let agent = setting.start(model(2)).await.unwrap();
    checks.await.unwrap();
    assert_eq!(agent.rotation(), [address(1)]);
    let report = agent.handle.status().await.unwrap();
    assert!(report.agent.ready && !report.agent.adopted);
    let states: Vec<_> = report.services[0]
        .backends
        .iter()
        .map(|backend| backend.state.as_str())
        .collect();
    assert_eq!(states, ["up", "down"]);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_answers_does_not_hold_the_start_up() {
    let began = Instant::now();
    let agent = Setting::new(Fake::default()).start(model(1)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(agent.rotation(), []);
    agent.results.send(result(1, true)).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.rotation(), [address(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_start_on_a_missing_interface_leaves_nothing() {
    let setting = Setting::new(Fake::default());
    let plane = setting.plane.clone();
    let mut model = model(1);
    model.interfaces[0].name = "nope0".to_owned();
    let error = setting.start(model).await.err().unwrap();
    assert!(matches!(error, StartError::NoInterface(name) if name == "nope0"));
    assert!(plane.state().removed);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_can_not_attach_leaves_nothing() {
    let setting = Setting::new(Fake::default());
    let plane = setting.plane.clone();
    plane.state().refusing.push("eth0".to_owned());
    assert!(matches!(
        setting.start(model(1)).await.err(),
        Some(StartError::Attach(_))
    ));
    assert!(plane.state().removed);
}

#[tokio::test(start_paused = true)]
async fn a_start_after_a_kill_adopts_and_changes_nothing() {
    let before = running(3).await;
    before.fail(2).await;
    let tables = before.plane.state().tables.clone();
    let setting = Setting::new(Fake::adopted(tables));
    setting
        .plane
        .state()
        .links
        .insert("eth0".to_owned(), (2, 0));
    let agent = setting.start(model(3)).await.unwrap();
    assert_eq!(agent.plane.state().changes, []);
    assert_eq!(
        agent.plane.state().links["eth0"],
        (2, 1),
        "the link has a new program"
    );
    assert_eq!(agent.rotation(), [address(1), address(3)]);
    agent.results.send(result(2, true)).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.rotation().len(), 2, "it was down: rise counts");
    agent.results.send(result(2, true)).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.rotation().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_data_plane_is_looked_after_although_an_interface_is_gone() {
    let tables = running(1).await.plane.state().tables.clone();
    let setting = Setting::new(Fake::adopted(tables));
    setting.host.0.lock().unwrap().links.clear();
    let agent = setting.start(model(1)).await.unwrap();
    assert!(!agent.handle.status().await.unwrap().agent.ready);
    agent
        .host
        .0
        .lock()
        .unwrap()
        .links
        .insert("eth0".to_owned(), 9);
    agent.network_changed().await;
    assert_eq!(agent.plane.state().links["eth0"], (9, 0));
    assert!(agent.handle.status().await.unwrap().agent.ready);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_leaves_the_rotation_and_comes_back() {
    let agent = running(2).await;
    agent.fail(1).await;
    assert_eq!(agent.rotation(), [address(2)]);
    for _ in 0..2 {
        agent.results.send(result(1, true)).await.unwrap();
    }
    agent.settle().await;
    assert_eq!(agent.rotation(), [address(1), address(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_map_that_refuses_is_tried_again_and_the_last_good_state_stays() {
    let agent = running(2).await;
    agent.plane.state().changes_until_failure = Some(1);
    agent.fail(1).await;
    let report = agent.handle.status().await.unwrap();
    assert!(report.agent.reconcile_failures >= 1);
    assert_eq!(
        agent.rotation(),
        [address(2)],
        "it was stopped; its slot is still there"
    );
    agent.plane.state().changes_until_failure = None;
    sleep(Duration::from_secs(6)).await;
    let tables = agent.plane.state().tables.clone();
    let (_, row) = tables.service_in_force(service()).unwrap();
    assert_eq!(row.range().length, 1);
}

fn service() -> ServiceAddress {
    let service = &model(0).services[0];
    ServiceAddress {
        address: service.address,
        protocol: service.protocol,
    }
}

#[tokio::test(start_paused = true)]
async fn what_something_else_changes_is_repaired() {
    let agent = running(2).await;
    agent.plane.state().tables.keys.clear();
    agent.plane.state().links.clear();
    sleep(Duration::from_secs(31)).await;
    assert_eq!(agent.rotation().len(), 2);
    assert_eq!(agent.plane.state().links["eth0"], (2, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_while_nothing_changes() {
    let agent = running(2).await;
    let changes = agent.plane.state().changes.len();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(agent.plane.state().changes.len(), changes);
    assert_eq!(agent.plane.state().links["eth0"], (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_mac_address_reaches_the_maps_at_once() {
    let agent = running(1).await;
    agent.host.0.lock().unwrap().macs.insert(address(1).ip(), 9);
    agent.network_changed().await;
    let report = agent.handle.status().await.unwrap();
    assert_eq!(
        report.services[0].backends[0].next_hop.as_deref(),
        Some("02:00:00:00:01:09")
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_can_not_be_forwarded_to_leaves_the_rotation_with_a_reason() {
    let agent = running(2).await;
    agent.host.0.lock().unwrap().lost.insert(address(1).ip());
    agent.network_changed().await;
    assert_eq!(agent.rotation(), [address(2)]);
    let report = agent.handle.status().await.unwrap();
    let backend = &report.services[0].backends[0];
    assert!(
        !backend.in_rotation && backend.reason.contains("10.0.0.1"),
        "{}",
        backend.reason
    );
}

#[tokio::test(start_paused = true)]
async fn an_interface_made_anew_is_attached_again() {
    let agent = running(1).await;
    agent.host.0.lock().unwrap().links.clear();
    agent.network_changed().await;
    let report = agent.handle.status().await.unwrap();
    assert!(!report.agent.ready);
    assert!(
        report.interfaces[0]
            .reason
            .as_deref()
            .unwrap()
            .contains("no such interface")
    );
    agent
        .host
        .0
        .lock()
        .unwrap()
        .links
        .insert("eth0".to_owned(), 7);
    agent.network_changed().await;
    assert_eq!(agent.plane.state().links["eth0"].0, 7);
    assert!(
        agent
            .plane
            .state()
            .tables
            .devices
            .values()
            .any(|ifindex| *ifindex == 7)
    );
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_refuses_is_tried_again() {
    let agent = running(1).await;
    agent.plane.state().refusing.push("eth0".to_owned());
    agent
        .host
        .0
        .lock()
        .unwrap()
        .links
        .insert("eth0".to_owned(), 7);
    agent.network_changed().await;
    assert!(!agent.handle.status().await.unwrap().agent.ready);
    agent.plane.state().refusing.clear();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(agent.plane.state().links["eth0"].0, 7);
}

#[tokio::test(start_paused = true)]
async fn a_reload_applies_the_difference_and_says_it() {
    let agent = running(2).await;
    assert_eq!(agent.handle.reload(model(2)).await.unwrap(), Ok(vec![]));
    let mut wanted = model(2);
    wanted.pools[0].backends.remove(0);
    wanted.pools[0].backends.push(backend(3));
    let lines = agent.handle.reload(wanted).await.unwrap().unwrap();
    assert_eq!(
        lines,
        [
            "pool web: backend web3 (10.0.0.3:80) added",
            "pool web: backend web1 (10.0.0.1:80) removed; its flows go on"
        ]
    );
    assert_eq!(
        agent.rotation(),
        [address(2)],
        "the new one is checked first"
    );
    agent.results.send(result(3, true)).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.rotation(), [address(2), address(3)]);
    assert_eq!(agent.host.0.lock().unwrap().checked, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_is_refused_changes_nothing() {
    let agent = running(2).await;
    let changes = agent.plane.state().changes.len();
    let mut missing = model(1);
    missing.interfaces.push(Interface {
        name: "nope0".to_owned(),
        mode: AttachMode::Auto,
    });
    let refusals = agent.handle.reload(missing).await.unwrap().unwrap_err();
    assert!(
        refusals[0].contains("nope0") && refusals[0].contains("mend"),
        "{refusals:?}"
    );
    let mut larger = model(1);
    larger.data_plane.flow_entries *= 2;
    let refusals = agent.handle.reload(larger).await.unwrap().unwrap_err();
    assert!(refusals[0].contains("4096 to 8192"), "{refusals:?}");
    assert_eq!(agent.plane.state().changes.len(), changes);
    assert_eq!(agent.rotation().len(), 2);
    agent
        .handle
        .config_refused("bad file".to_owned())
        .await
        .unwrap();
    assert_eq!(
        agent
            .handle
            .status()
            .await
            .unwrap()
            .agent
            .config_error
            .as_deref(),
        Some("bad file")
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_whose_new_interface_refuses_is_taken_back() {
    let agent = running(2).await;
    agent
        .host
        .0
        .lock()
        .unwrap()
        .links
        .insert("eth1".to_owned(), 3);
    agent.plane.state().refusing.push("eth1".to_owned());
    let mut wanted = model(1);
    wanted.interfaces.push(Interface {
        name: "eth1".to_owned(),
        mode: AttachMode::Auto,
    });
    let refusals = agent
        .handle
        .reload(wanted.clone())
        .await
        .unwrap()
        .unwrap_err();
    assert!(refusals[0].starts_with("eth1"), "{refusals:?}");
    assert_eq!(agent.rotation().len(), 2);
    let state = agent
        .plane
        .state()
        .tables
        .devices
        .values()
        .copied()
        .collect::<Vec<_>>();
    assert_eq!(state, [2]);
    agent.plane.state().refusing.clear();
    assert!(agent.handle.reload(wanted).await.unwrap().is_ok());
    assert_eq!(agent.plane.state().links["eth1"], (3, 0));
    assert!(agent.handle.reload(model(1)).await.unwrap().is_ok());
    assert!(!agent.plane.state().links.contains_key("eth1"));
}

#[tokio::test(start_paused = true)]
async fn the_row_of_a_removed_backend_is_free_after_its_last_flow() {
    let agent = running(2).await;
    let id = {
        let state = agent.plane.state();
        state
            .tables
            .tenants()
            .find(|(_, tenant, _)| *tenant == address(2))
            .unwrap()
            .0
    };
    agent
        .plane
        .state()
        .census
        .backend_references
        .insert(id.get(), 1);
    assert!(agent.handle.reload(model(1)).await.unwrap().is_ok());
    sleep(Duration::from_secs(60)).await;
    assert!(in_use(&agent.plane, id), "a flow refers to it");
    agent.plane.state().census.backend_references.clear();
    sleep(Duration::from_secs(10)).await;
    assert!(!in_use(&agent.plane, id));
}

fn in_use(plane: &Fake, id: BackendId) -> bool {
    plane.state().tables.backends[&id].state().flags & BackendState::IN_USE != 0
}

#[tokio::test(start_paused = true)]
async fn managed_addresses_are_kept_announced_and_withdrawn() {
    let setting = Setting::new(Fake::default());
    setting.results.send(result(1, true)).await.unwrap();
    let mut model = model(1);
    model.manage_addresses = true;
    let agent = setting.start(model).await.unwrap();
    let wanted = Wanted {
        interface: "eth0".to_owned(),
        addresses: [[192, 0, 2, 10].into()].into(),
    };
    assert_eq!(agent.host.0.lock().unwrap().kept, [Some(wanted)]);
    let announcement = Announcement {
        ifindex: 2,
        address: [192, 0, 2, 10].into(),
        frame: [7; 42],
    };
    agent.announcements.send(announcement).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.plane.state().sent, [(2, vec![7; 42])]);
    assert_eq!(agent.handle.shutdown().await.unwrap(), Ok(()));
    assert_eq!(agent.host.0.lock().unwrap().kept.last(), Some(&None));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_nothing_and_ends_the_core() {
    let agent = running(2).await;
    assert_eq!(agent.handle.shutdown().await.unwrap(), Ok(()));
    assert!(agent.plane.state().removed);
    assert!(agent.handle.status().await.is_err());
}
