//! What a new configuration does.

use lb_common::abi::{BackendId, word::BackendState};

use super::*;
use crate::model::DataPlaneLog;

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
        refusals.len() == 1 && refusals[0].contains("eth1") && refusals[0].contains("mend"),
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
