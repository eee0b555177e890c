//! What a running agent does by itself.

use lb_common::abi::word::BackendState;

use super::*;
use crate::plan::Change;

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

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_keeps_no_other_from_being_applied() {
    let agent = running(3).await;
    // The row of the first backend can't be written; the second goes down at the same time.
    agent.plane.state().failing =
        Some(|change| matches!(change, Change::BackendState { id, .. } if id.get() == 1));
    agent.fail(1).await;
    let report = agent.handle.status().await.unwrap();
    assert!(report.agent.reconcile_failures >= 1);
    assert_eq!(
        agent.rotation(),
        [address(2), address(3)],
        "its slots were still replaced"
    );
    agent.fail(2).await;
    assert_eq!(agent.rotation(), [address(3)]);
    let accepts = |agent: &Agent| {
        let state = agent.plane.state();
        let tenants = state.tables.tenants();
        tenants
            .map(|(id, _, row)| (id.get(), row.flags & BackendState::ACCEPTS != 0))
            .collect::<Vec<_>>()
    };
    assert_eq!(accepts(&agent), [(1, true), (2, false), (3, true)]);
    agent.plane.state().failing = None;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(accepts(&agent), [(1, false), (2, false), (3, true)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_change_has_done_is_read_and_not_done_again() {
    let agent = running(2).await;
    let state_changes = |agent: &Agent| {
        let state = agent.plane.state();
        let changes = state.changes.iter();
        changes
            .filter(|change| matches!(change, Change::BackendState { id, .. } if id.get() == 1))
            .count()
    };
    let before = state_changes(&agent);
    agent.plane.state().half_failing = Some(|change| matches!(change, Change::BackendState { .. }));
    agent.fail(1).await;
    assert!(
        agent
            .handle
            .status()
            .await
            .unwrap()
            .agent
            .reconcile_failures
            > 0
    );
    agent.plane.state().half_failing = None;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(agent.rotation(), [address(2)]);
    assert_eq!(state_changes(&agent), before + 1);
}

#[tokio::test(start_paused = true)]
async fn what_something_else_changes_is_repaired() {
    let agent = running(2).await;
    let config = agent.plane.state().tables.config;
    assert_eq!((config.ticks_per_second, config.flow_seed), (250, 0x5eed));
    agent.plane.state().tables.keys.clear();
    agent.plane.state().tables.config.flow_seed = 0;
    agent.plane.state().links.clear();
    sleep(Duration::from_secs(31)).await;
    assert_eq!(agent.plane.state().tables.config, config);
    assert_eq!(agent.rotation().len(), 2);
    assert_eq!(agent.plane.state().links["eth0"], (2, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_while_nothing_changes() {
    let agent = running(2).await;
    let changes = agent.plane.state().changes.len();
    sleep(Duration::from_mins(10)).await;
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
async fn managed_addresses_are_kept_announced_and_withdrawn() {
    let setting = Setting::new(Fake::default());
    setting.results.send(result(1, true)).await.unwrap();
    let mut model = model(1);
    model.manage_addresses = true;
    let agent = setting.start(model).await.unwrap();
    let wanted = Wanted {
        interface: "eth0".to_owned(),
        addresses: [[192, 0, 2, 10].into()].into(),
        ..Wanted::default()
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

fn service() -> ServiceAddress {
    let service = &model(0).services[0];
    ServiceAddress {
        address: service.address,
        protocol: service.protocol,
    }
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_is_made_anew_with_the_same_index_gets_the_program_at_once() {
    // The change may be seen in two steps or in one.
    for seen_gone in [true, false] {
        let agent = running(1).await;
        let devices = agent.plane.state().tables.devices.clone();
        assert_eq!(devices.len(), 1);
        if seen_gone {
            agent.host.0.lock().unwrap().links.clear();
            agent.network_changed().await;
        }
        // What the kernel does with an interface's going.
        {
            let mut state = agent.plane.state();
            state.links.clear();
            state.tables.devices.clear();
            state.quiet = None;
        }
        {
            let mut network = agent.host.0.lock().unwrap();
            network.links.insert("eth0".to_owned(), 2);
            network.made += 1;
        }
        agent.network_changed().await;
        let state = agent.plane.state();
        assert_eq!(state.links.get("eth0"), Some(&(2, 0)), "{seen_gone}");
        assert_eq!(state.tables.devices, devices, "{seen_gone}");
        assert_eq!(
            state.quiet.as_deref(),
            Some("eth0"),
            "redirects are on where an interface is new: {seen_gone}"
        );
    }
}
