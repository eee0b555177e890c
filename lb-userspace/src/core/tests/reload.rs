//! What a new configuration does.

use lb_common::abi::{BackendId, word::BackendState};

use super::*;
use crate::{core::Applied, model::DataPlaneLog};

#[tokio::test(start_paused = true)]
async fn a_reload_applies_the_difference_and_says_it() {
    let agent = running(2).await;
    assert_eq!(
        agent.handle.reload(model(2)).await.unwrap(),
        Ok(Applied::default())
    );
    let mut wanted = model(2);
    wanted.pools[0].backends.remove(0);
    wanted.pools[0].backends.push(backend(3));
    let lines = agent.handle.reload(wanted).await.unwrap().unwrap();
    assert_eq!(
        lines.applied,
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
async fn a_reload_s_rise_and_fall_are_those_of_backends_that_are_there() {
    let agent = running(2).await;
    let mut wanted = model(2);
    let Some(check) = &mut wanted.pools[0].check else {
        panic!("the pool is checked")
    };
    (check.rise, check.fall) = (3, 1);
    assert!(agent.handle.reload(wanted).await.unwrap().is_ok());
    agent.results.send(result(1, false)).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.rotation(), [address(2)], "one failure is enough now");
    for passes in 1..=3 {
        agent.results.send(result(1, true)).await.unwrap();
        agent.settle().await;
        assert_eq!(agent.rotation().len() == 2, passes == 3, "{passes} passes");
    }
}

#[tokio::test(start_paused = true)]
async fn while_another_program_is_loaded_everything_goes_on() {
    let agent = running(2).await;
    let (gate, closed) = std::sync::mpsc::channel();
    agent.plane.state().load_gate = Some(closed);
    let mut wanted = model(2);
    wanted.data_plane.log = DataPlaneLog::Debug;
    let reload = tokio::spawn({
        let (handle, wanted) = (agent.handle.clone(), wanted.clone());
        async move { handle.reload(wanted).await.unwrap() }
    });
    // Time stands still while something is loaded.
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_mins(1), "{what}");
            agent.handle.ping().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    until("loading begins", &|| {
        agent.plane.state().load_gate.is_none()
    })
    .await;
    for _ in 0..3 {
        agent.results.send(result(1, false)).await.unwrap();
    }
    until("a dead backend leaves", &|| {
        agent.rotation() == [address(2)]
    })
    .await;
    let second = agent.handle.reload(model(2)).await.unwrap().unwrap_err();
    assert!(second[0].contains("another reload"), "{second:?}");
    assert_eq!(agent.plane.state().settings, None, "it is not in force yet");
    gate.send(()).unwrap();
    assert_eq!(
        reload.await.unwrap().unwrap().applied,
        ["data plane: log debug, program replaced"]
    );
    assert_eq!(agent.plane.state().settings, Some(wanted.data_plane));
    assert_eq!(agent.rotation(), [address(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_program_that_is_being_loaded() {
    let agent = running(1).await;
    let (gate, closed) = std::sync::mpsc::channel();
    agent.plane.state().load_gate = Some(closed);
    let mut wanted = model(1);
    wanted.data_plane.log = DataPlaneLog::Debug;
    let handle = agent.handle.clone();
    let reload = tokio::spawn(async move { handle.reload(wanted).await });
    while agent.plane.state().load_gate.is_some() {
        agent.handle.ping().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.handle.shutdown().await.unwrap(), Ok(()));
    assert!(agent.plane.state().removed);
    assert!(reload.await.unwrap().is_err(), "the core has stopped");
    drop(gate);
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
        refusals[0].contains("nope0") && refusals[0].contains("help"),
        "{refusals:?}"
    );
    let mut larger = model(1);
    larger.data_plane.flow_entries *= 2;
    let refusals = agent.handle.reload(larger).await.unwrap().unwrap_err();
    assert!(refusals[0].contains("4096 to 8192"), "{refusals:?}");
    let another = Model {
        instance: "edge".to_owned(),
        socket: "/run/x.sock".into(),
        ..model(1)
    };
    let refusals = agent.handle.reload(another).await.unwrap().unwrap_err();
    let (old, new) = (model(1).instance, "edge");
    let instance = format!(
        "`instance` can't change from \"{old}\" to \"{new}\" while the agent runs\n   help: "
    );
    assert!(refusals[0].starts_with(&instance), "{refusals:?}");
    assert!(
        refusals[1].starts_with("`socket` can't change from "),
        "{refusals:?}"
    );
    assert_eq!(refusals.len(), 2, "{refusals:?}");
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
async fn a_good_reload_after_a_bad_one_is_all_that_is_reported() {
    let agent = running(1).await;
    let refused = agent.handle.config_refused("bad file".to_owned());
    refused.await.unwrap();
    let before = agent.handle.status().await.unwrap().agent;
    assert!(agent.handle.reload(model(1)).await.unwrap().is_ok());
    let after = agent.handle.status().await.unwrap().agent;
    assert_eq!(after.config_error, None);
    assert_ne!(after.config_loaded, before.config_loaded);
}

#[tokio::test(start_paused = true)]
async fn of_a_pool_that_takes_over_only_backends_in_rotation_stay_what_they_were() {
    let agent = running(2).await;
    agent.fail(2).await;
    let mut renamed = model(2);
    renamed.pools[0].name = "successor".to_owned();
    renamed.services[0].pool = "successor".to_owned();
    assert!(agent.handle.reload(renamed).await.unwrap().is_ok());
    assert_eq!(agent.rotation(), [address(1)], "without a check");
    let pool = "successor".to_owned();
    let passed = CheckResult {
        pool,
        ..result(2, true)
    };
    agent.results.send(passed).await.unwrap();
    agent.settle().await;
    assert_eq!(agent.rotation().len(), 2, "its first result decides alone");
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
    wanted.data_plane.log = DataPlaneLog::Debug;
    let refusals = agent
        .handle
        .reload(wanted.clone())
        .await
        .unwrap()
        .unwrap_err();
    assert!(refusals[0].starts_with("eth1"), "{refusals:?}");
    assert_eq!(
        agent.plane.state().settings,
        Some(model(1).data_plane),
        "the earlier program is back"
    );
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
async fn a_reload_into_a_mode_that_is_refused_is_taken_back() {
    let setting = Setting::new(Fake::default());
    let links = [("eth1".to_owned(), 3)];
    setting.host.0.lock().unwrap().links.extend(links);
    setting.plane.state().generic_only.push("eth1".to_owned());
    setting.results.send(result(1, true)).await.unwrap();
    let mut both = model(1);
    both.interfaces.push(Interface {
        name: "eth1".to_owned(),
        mode: AttachMode::Auto,
    });
    let agent = setting.start(both.clone()).await.unwrap();
    let mut wanted = both.clone();
    wanted.interfaces[0].mode = AttachMode::Generic;
    wanted.interfaces[1].mode = AttachMode::Native;
    let refusals = agent.handle.reload(wanted).await.unwrap().unwrap_err();
    assert!(
        refusals.len() == 1 && refusals[0].contains("eth1") && refusals[0].contains("help"),
        "{refusals:?}"
    );
    {
        let state = agent.plane.state();
        assert_eq!(state.links.len(), 2, "the program runs on both");
        let generic: Vec<_> = state.generic.iter().map(String::as_str).collect();
        assert_eq!(generic, ["eth1"], "each in the mode it was in");
    }
    assert!(agent.handle.status().await.unwrap().agent.ready);
    let mut allowed = both;
    allowed.interfaces[0].mode = AttachMode::Generic;
    assert!(agent.handle.reload(allowed).await.unwrap().is_ok());
    assert_eq!(agent.plane.state().generic.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_removes_the_interface_of_servers_names_them() {
    let setting = Setting::new(Fake::default());
    {
        let mut network = setting.host.0.lock().unwrap();
        network.links.insert("eth1".to_owned(), 3);
        network.behind.insert(address(2).ip(), "eth1".to_owned());
    }
    for number in 1..=2 {
        setting.results.send(result(number, true)).await.unwrap();
    }
    let mut both = model(2);
    both.interfaces.push(Interface {
        name: "eth1".to_owned(),
        mode: AttachMode::Auto,
    });
    let agent = setting.start(both.clone()).await.unwrap();
    let lines = agent
        .handle
        .reload(model(2))
        .await
        .unwrap()
        .unwrap()
        .applied;
    assert_eq!(lines[0], "interface eth1 removed");
    let told = "packets to web2 (10.0.0.2:80) leave by eth1";
    assert!(lines.len() == 2 && lines[1].contains(told), "{lines:?}");
    assert_eq!(agent.rotation(), [address(1)]);
    // Once: the next reload takes nothing more.
    let nothing = agent.handle.reload(model(2)).await.unwrap().unwrap();
    assert_eq!(nothing.applied, Vec::<String>::new());
    let lines = agent.handle.reload(both).await.unwrap().unwrap().applied;
    assert_eq!(lines, ["interface eth1 added"]);
}

#[tokio::test(start_paused = true)]
async fn auto_after_generic_tries_native_mode_again_and_says_where_it_is_refused() {
    let in_mode = |mode| {
        let mut wanted = model(1);
        wanted.interfaces[0].mode = mode;
        wanted
    };
    let setting = Setting::new(Fake::default());
    let agent = setting.start(in_mode(AttachMode::Generic)).await.unwrap();
    let mode = async || {
        let report = agent.handle.status().await.unwrap();
        report.interfaces[0].mode.clone()
    };
    assert_eq!(mode().await, "generic");
    let reload = async |mode| agent.handle.reload(in_mode(mode)).await.unwrap().unwrap();
    assert_eq!(
        reload(AttachMode::Auto).await.applied,
        ["interface eth0: mode auto"]
    );
    assert_eq!(mode().await, "native");
    reload(AttachMode::Generic).await;
    let only = ["eth0".to_owned()];
    agent.plane.state().generic_only.extend(only);
    let warnings = reload(AttachMode::Auto).await.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("eth0: generic mode"),
        "{warnings:?}"
    );
    assert_eq!(mode().await, "generic");
    // Once and not for ever: a reload of something else leaves the link alone.
    let (before, generic) = {
        let mut state = agent.plane.state();
        state.generic_only.clear();
        (state.links.clone(), state.generic.clone())
    };
    let mut larger = in_mode(AttachMode::Auto);
    larger.pools[0].backends.push(backend(2));
    agent.handle.reload(larger).await.unwrap().unwrap();
    assert_eq!(agent.plane.state().links, before);
    assert_eq!(agent.plane.state().generic, generic);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_is_taken_back_leaves_what_fell_back_to_generic_alone() {
    let setting = Setting::new(Fake::default());
    let links = [("eth1".to_owned(), 3)];
    setting.host.0.lock().unwrap().links.extend(links);
    setting.plane.state().generic_only.push("eth1".to_owned());
    let mut both = model(1);
    both.interfaces.push(Interface {
        name: "eth1".to_owned(),
        mode: AttachMode::Auto,
    });
    let agent = setting.start(both.clone()).await.unwrap();
    // Would take native mode now, were it tried.
    agent.plane.state().generic_only.clear();
    agent.plane.state().generic_only.push("eth0".to_owned());
    let mut wanted = both;
    wanted.interfaces[0].mode = AttachMode::Native;
    assert!(agent.handle.reload(wanted).await.unwrap().is_err());
    let generic: Vec<_> = agent.plane.state().generic.iter().cloned().collect();
    assert_eq!(generic, ["eth1"]);
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
    sleep(Duration::from_mins(1)).await;
    assert!(in_use(&agent.plane, id), "a flow refers to it");
    agent.plane.state().census.backend_references.clear();
    sleep(Duration::from_secs(10)).await;
    assert!(!in_use(&agent.plane, id));
}

#[tokio::test(start_paused = true)]
async fn the_vip_of_a_removed_service_stays_until_its_last_flow_has_ended() {
    let setting = Setting::new(Fake::default());
    setting.results.send(result(1, true)).await.unwrap();
    let mut wanted = model(1);
    wanted.manage_addresses = true;
    let agent = setting.start(wanted.clone()).await.unwrap();
    let vips = || {
        let host = agent.host.0.lock().unwrap();
        let wanted = host.kept.last().unwrap().clone().unwrap();
        (wanted.addresses, wanted.leaving)
    };
    let id = agent
        .plane
        .state()
        .tables
        .services
        .keys()
        .next()
        .unwrap()
        .get();
    agent.plane.state().census.service_references.insert(id, 1);
    wanted.services.clear();
    assert!(agent.handle.reload(wanted).await.unwrap().is_ok());
    sleep(Duration::from_mins(1)).await;
    assert_eq!(vips(), ([].into(), [[192, 0, 2, 10].into()].into()));
    agent.plane.state().census.service_references.clear();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(vips(), ([].into(), [].into()));
}

fn in_use(plane: &Fake, id: BackendId) -> bool {
    plane.state().tables.backends[&id].state().flags & BackendState::IN_USE != 0
}

#[tokio::test(start_paused = true)]
async fn the_way_to_a_removed_backend_is_watched_while_it_has_flows_and_then_forgotten() {
    let agent = running(3).await;
    let watched = || agent.host.0.lock().unwrap().watch.destinations.clone();
    let all: BTreeSet<_> = [1, 2, 3].map(|number| address(number).ip()).into();
    assert_eq!(watched(), all);
    let row = {
        let mut state = agent.plane.state();
        let mut tenants = state.tables.tenants();
        let (row, ..) = tenants
            .find(|(_, tenant, _)| *tenant == address(3))
            .unwrap();
        drop(tenants);
        state.census.backend_references.insert(row.get(), 1);
        row
    };
    agent.handle.reload(model(2)).await.unwrap().unwrap();
    sleep(Duration::from_mins(5)).await;
    agent.settle().await;
    assert_eq!(watched(), all, "its flow goes on");

    // Its neighbour has another MAC address now, which its flow must follow.
    let way = |agent: &Agent| agent.plane.state().tables.backends[&row];
    let before = format!("{:?}", way(&agent));
    agent.host.0.lock().unwrap().macs.insert(address(3).ip(), 9);
    agent.network_changed().await;
    assert_ne!(format!("{:?}", way(&agent)), before);

    agent.plane.state().census.backend_references.clear();
    sleep(Duration::from_mins(5)).await;
    agent.settle().await;
    let left: BTreeSet<_> = [1, 2].map(|number| address(number).ip()).into();
    assert_eq!(watched(), left);
}
