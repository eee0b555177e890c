//! How long the core waits before it tries, looks or scans again.

use lb_common::abi::word::BackendState;

use super::*;
use crate::{nic::Nic, plan::Change};

/// The last byte of the MAC address of the first backend's next hop, in force.
fn mac(agent: &Agent) -> u8 {
    let state = agent.plane.state();
    let row = state.tables.backends.values().next().unwrap();
    row.way().mac[5]
}

/// Gives the first backend another MAC address.
async fn moves(agent: &Agent, mac: u8) {
    let address = address(1).ip();
    agent.host.0.lock().unwrap().macs.insert(address, mac);
    agent.network_changed().await;
}

fn writes_a_way(change: &Change) -> bool {
    matches!(change, Change::BackendWay { .. })
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_ever_less_often_and_at_least_every_five_seconds() {
    let agent = running(1).await;
    agent.plane.state().failing = Some(writes_a_way);
    moves(&agent, 9).await;
    sleep(Duration::from_mins(1)).await;
    let failures = agent
        .handle
        .status()
        .await
        .unwrap()
        .agent
        .reconcile_failures;
    // After 0.1, 0.2, 0.4, 0.8, 1.6 and 3.2 seconds, then every five; and what is due every half minute.
    assert!((15..=22).contains(&failures), "{failures}");
}

#[tokio::test(start_paused = true)]
async fn after_a_success_the_first_retry_comes_soon_again() {
    let agent = running(1).await;
    for number in [9, 10] {
        agent.plane.state().failing = Some(writes_a_way);
        moves(&agent, number).await;
        sleep(Duration::from_secs(20)).await;
        agent.plane.state().failing = None;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(mac(&agent), number);
    }
    agent.plane.state().failing = Some(writes_a_way);
    moves(&agent, 11).await;
    agent.plane.state().failing = None;
    sleep(Duration::from_millis(150)).await;
    assert_eq!(mac(&agent), 11);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_maps_are_read_and_not_believed() {
    let agent = running(2).await;
    // The change fails and has done something else all the same.
    agent.plane.state().failing = Some(writes_a_way);
    agent.plane.state().tables.keys.clear();
    moves(&agent, 9).await;
    agent.plane.state().failing = None;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(agent.rotation().len(), 2, "the key is there again");
}

#[tokio::test(start_paused = true)]
async fn drift_is_looked_for_again_and_again() {
    let agent = running(2).await;
    for _ in 0..3 {
        agent.plane.state().tables.keys.clear();
        sleep(Duration::from_secs(31)).await;
        assert_eq!(agent.rotation().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_not_the_agents_own_is_made_anew() {
    let agent = running(1).await;
    agent.plane.state().links.insert("eth0".to_owned(), (77, 0));
    sleep(Duration::from_secs(31)).await;
    assert_eq!(agent.plane.state().links["eth0"].0, 2);
    agent.plane.state().outdated.insert("eth0".to_owned());
    sleep(Duration::from_secs(31)).await;
    assert_eq!(agent.plane.state().outdated, BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_refuses_is_tried_ever_less_often_and_at_least_twice_a_minute() {
    let agent = running(1).await;
    let ifindex = |agent: &Agent| agent.plane.state().links["eth0"].0;
    for (number, refuses, later) in [(7, 8, 16), (8, 70, 95)] {
        agent.plane.state().refusing.push("eth0".to_owned());
        let links = [("eth0".to_owned(), number)];
        agent.host.0.lock().unwrap().links.extend(links);
        agent.network_changed().await;
        // After 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5 and 91.5 seconds.
        sleep(Duration::from_secs(refuses)).await;
        agent.plane.state().refusing.clear();
        sleep(Duration::from_secs(2)).await;
        assert_ne!(ifindex(&agent), number, "it is not tried all the time");
        sleep(Duration::from_secs(later - refuses - 2)).await;
        assert_eq!(ifindex(&agent), number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mode_that_was_refused_is_not_tried_again_at_once() {
    let plane = Fake::adopted(running(1).await.plane.state().tables.clone());
    {
        let mut state = plane.state();
        state.links.insert("eth0".to_owned(), (2, 0));
        state.generic.insert("eth0".to_owned());
        state.generic_only.push("eth0".to_owned());
    }
    let mut wanted = model(1);
    wanted.interfaces[0].mode = AttachMode::Native;
    let agent = Setting::new(plane).start(wanted).await.unwrap();
    agent.plane.state().generic_only.clear();
    let generic = || !agent.plane.state().generic.is_empty();
    sleep(Duration::from_mins(50)).await;
    assert!(generic(), "each time the program is off for a moment");
    sleep(Duration::from_mins(11)).await;
    assert!(!generic());
}

#[tokio::test(start_paused = true)]
async fn native_mode_is_tried_again_when_what_kept_an_interface_out_of_it_has_changed() {
    let plane = Fake::default();
    let large = Nic {
        mtu: 9_000,
        ..Nic::default()
    };
    plane.state().nics.insert(2, large.clone());
    plane.state().generic_only.push("eth0".to_owned());
    let agent = Setting::new(plane).start(model(1)).await.unwrap();
    let generic = || !agent.plane.state().generic.is_empty();
    let attempts = agent.plane.state().attempts;
    sleep(Duration::from_mins(10)).await;
    assert!(generic());
    assert_eq!(
        agent.plane.state().attempts,
        attempts,
        "each time the program is off for a moment"
    );

    // What was changed did not help, and then something does.
    for (mtu, helps) in [(5_000, false), (1_500, true)] {
        let nic = Nic {
            mtu,
            ..large.clone()
        };
        agent.plane.state().nics.insert(2, nic);
        if helps {
            agent.plane.state().generic_only.clear();
        }
        sleep(Duration::from_secs(31)).await;
        assert_eq!(generic(), !helps, "{mtu}");
    }
    let reason = agent.handle.status().await.unwrap().interfaces[0]
        .reason
        .clone();
    assert_eq!(reason, None);
}

#[tokio::test(start_paused = true)]
async fn the_flow_table_is_scanned_ever_less_often_while_flows_hold_all_and_soon_where_one_may_be_free()
 {
    let agent = running(3).await;
    let id = |number| {
        let state = agent.plane.state();
        let mut tenants = state.tables.tenants();
        tenants
            .find(|(_, tenant, _)| *tenant == address(number))
            .unwrap()
            .0
    };
    let (second, third) = (id(2), id(3));
    let holding = [(third.get(), 1)];
    agent
        .plane
        .state()
        .census
        .backend_references
        .extend(holding);
    assert!(agent.handle.reload(model(2)).await.unwrap().is_ok());
    let before = agent.plane.state().censuses;
    sleep(Duration::from_mins(10)).await;
    // After 2, 4, 8, 16, 32, 64 seconds, then every 64.
    let scans = agent.plane.state().censuses - before;
    assert!((11..=16).contains(&scans), "{scans}");

    assert!(agent.handle.reload(model(1)).await.unwrap().is_ok());
    sleep(Duration::from_secs(10)).await;
    let in_use = |id| {
        let row = agent.plane.state().tables.backends[&id];
        row.state().flags & BackendState::IN_USE != 0
    };
    assert_eq!((in_use(second), in_use(third)), (false, true));
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_an_earlier_watch_is_nothing() {
    let agent = running(1).await;
    let other = {
        let network = agent.host.0.lock().unwrap();
        let mut watch = network.watch.clone();
        watch.destinations.clear();
        let mut other = network.observe(&watch);
        other.links.values_mut().for_each(|link| *link = None);
        other
    };
    agent.observations.send(other).await.unwrap();
    agent.settle().await;
    assert!(agent.handle.status().await.unwrap().agent.ready);
}
