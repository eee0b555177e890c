//! How an agent begins, and ends.

use super::*;
use crate::plan::Change;

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
async fn a_start_waits_for_first_results_as_long_as_a_check_may_take_and_a_few_seconds_at_most() {
    let setting = Setting::new(Fake::default());
    let results = setting.results.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(450)).await;
        results.send(result(1, true)).await.unwrap();
    });
    let agent = setting.start(model(1)).await.unwrap();
    assert_eq!(agent.rotation(), [address(1)]);

    let began = Instant::now();
    let mut patient = model(1);
    patient.pools[0].check.as_mut().unwrap().timeout = Duration::from_mins(1);
    Setting::new(Fake::default()).start(patient).await.unwrap();
    let waited = began.elapsed();
    assert!((4..=6).contains(&waited.as_secs()), "{waited:?}");
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
async fn a_start_that_adopts_generic_mode_where_any_would_do_says_so() {
    let tables = running(1).await.plane.state().tables.clone();
    for mode in [AttachMode::Auto, AttachMode::Generic] {
        let setting = Setting::new(Fake::adopted(tables.clone()));
        {
            let mut state = setting.plane.state();
            state.links.insert("eth0".to_owned(), (2, 0));
            state.generic.insert("eth0".to_owned());
        }
        let mut model = model(1);
        model.interfaces[0].mode = mode;
        let agent = setting.start(model).await.unwrap();
        let report = agent.handle.status().await.unwrap();
        assert_eq!(report.interfaces[0].mode, "generic");
        assert_eq!(
            report.interfaces[0].reason.is_some(),
            mode == AttachMode::Auto,
            "{:?}",
            report.interfaces[0]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_was_added_while_no_agent_ran_is_unknown_and_not_down() {
    let tables = running(1).await.plane.state().tables.clone();
    let agent = Setting::new(Fake::adopted(tables))
        .start(model(2))
        .await
        .unwrap();
    let report = agent.handle.status().await.unwrap();
    assert_eq!(report.services[0].backends[1].state, "checking");
    agent.results.send(result(2, true)).await.unwrap();
    agent.settle().await;
    assert_eq!(
        agent.rotation(),
        [address(1), address(2)],
        "its first pass is enough"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_does_not_manage_addresses_removes_those_of_the_earlier_agent() {
    let vip = Ipv4Addr::new(192, 0, 2, 10);
    for (adopted, wanted) in [(false, false), (true, false), (true, true)] {
        let plane = if adopted {
            let tables = running(1).await.plane.state().tables.clone();
            let plane = Fake::adopted(tables);
            // The configuration has named another interface meanwhile.
            plane.state().links.insert("eth7".to_owned(), (7, 0));
            plane
        } else {
            Fake::default()
        };
        let setting = Setting::new(plane);
        let host = setting.host.clone();
        let places = ["eth0", "eth7"].map(|name| (name.to_owned(), vip));
        host.0.lock().unwrap().old_vips.extend(places);
        let mut model = model(1);
        model.manage_addresses = wanted;
        setting.start(model).await.unwrap();
        let network = host.0.lock().unwrap();
        let left: Vec<_> = network.old_vips.keys().map(String::as_str).collect();
        match (adopted, wanted) {
            (_, true) => assert_eq!(left, ["eth0", "eth7"], "that is the keeper's to do"),
            (true, false) => assert_eq!(left, [""; 0]),
            (false, false) => assert_eq!(left, ["eth7"], "perhaps another instance's"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_can_not_remove_an_address_leaves_nothing_new_and_what_was_adopted() {
    for adopted in [false, true] {
        let plane = if adopted {
            Fake::adopted(running(1).await.plane.state().tables.clone())
        } else {
            Fake::default()
        };
        let setting = Setting::new(plane.clone());
        setting.host.0.lock().unwrap().keeps_old_vips = true;
        let error = setting.start(model(1)).await.err();
        assert!(matches!(error, Some(StartError::Netlink(_))), "{error:?}");
        assert_eq!(plane.state().removed, !adopted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_data_plane_that_is_lost_while_the_first_results_come_is_a_failed_start() {
    let setting = Setting::new(Fake::default());
    let plane = setting.plane.clone();
    let results = setting.results.clone();
    plane.state().panicking = Some(|change| matches!(change, Change::ServiceSlots { .. }));
    results.send(result(1, true)).await.unwrap();
    let host = setting.host.clone();
    let error = setting.start(model(1)).await.err();
    assert!(matches!(error, Some(StartError::Lost(_))), "{error:?}");
    let network = host.0.lock().unwrap();
    assert_eq!(network.checked, [1, 0], "the checks end");
    assert_eq!(network.kept.last(), Some(&None), "the addresses go");
}
