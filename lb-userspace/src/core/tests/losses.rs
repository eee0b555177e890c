//! What somebody else takes from the data plane, and what ready means.

use super::*;
use crate::{core::Applied, model::ReadyWhen};

#[tokio::test(start_paused = true)]
async fn lost_pins_are_made_again_and_nothing_else_happens() {
    let agent = running(2).await;
    let links = agent.plane.state().links.clone();
    agent.plane.state().losses.pins = vec!["FLOWS".to_owned(), "link-eth0".to_owned()];
    sleep(Duration::from_secs(1)).await;
    assert!(agent.plane.state().losses.is_empty());
    assert_eq!(agent.plane.state().links, links, "no link was touched");
    assert!(agent.handle.status().await.unwrap().agent.ready);
}

#[tokio::test(start_paused = true)]
async fn pins_that_can_not_be_made_again_are_told_and_hold_up_nothing() {
    let agent = running(2).await;
    agent.plane.state().no_bpffs = true;
    agent.plane.state().losses.pins = vec!["FLOWS".to_owned()];
    sleep(Duration::from_secs(1)).await;
    let report = agent.handle.status().await.unwrap();
    assert!(!report.agent.ready);
    let [reason] = &report.agent.not_ready[..] else {
        panic!("{:?}", report.agent.not_ready)
    };
    assert!(
        reason.contains("FLOWS") && reason.contains("/run/bpf does not exist"),
        "{reason}"
    );
    agent.fail(1).await;
    assert_eq!(agent.rotation(), [address(2)], "traffic is looked after");
    assert_eq!(
        agent.handle.reload(model(2)).await.unwrap(),
        Ok(Applied::default())
    );
    agent.plane.state().no_bpffs = false;
    sleep(Duration::from_secs(1)).await;
    assert!(agent.plane.state().losses.is_empty());
    assert!(agent.handle.status().await.unwrap().agent.ready);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_was_taken_off_is_attached_again_at_once() {
    let agent = running(1).await;
    let take_off = || {
        let mut state = agent.plane.state();
        state.links.remove("eth0");
        state.losses.links = vec!["eth0".to_owned()];
    };
    take_off();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(agent.plane.state().links["eth0"], (2, 0));
    assert!(agent.handle.status().await.unwrap().agent.ready);

    agent.plane.state().refusing.push("eth0".to_owned());
    take_off();
    sleep(Duration::from_millis(300)).await;
    let reasons = agent.handle.status().await.unwrap().agent.not_ready;
    assert!(
        reasons.len() == 1 && reasons[0].starts_with("eth0: "),
        "{reasons:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_link_that_something_else_has_taken_the_place_of_is_tried_ever_less_often() {
    let agent = running(1).await;
    {
        let mut state = agent.plane.state();
        state.links.remove("eth0");
        state.losses.links = vec!["eth0".to_owned()];
        state.refusing.push("eth0".to_owned());
        state.attempts = 0;
    }
    sleep(Duration::from_mins(5)).await;
    let attempts = agent.plane.state().attempts;
    assert!((10..20).contains(&attempts), "{attempts} attempts");
    assert!(!agent.handle.status().await.unwrap().agent.ready);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_without_a_living_backend_is_ready_only_where_that_is_asked_for() {
    let agent = running(1).await;
    agent.fail(1).await;
    let report = agent.handle.status().await.unwrap();
    assert!(!report.agent.ready);
    assert_eq!(
        report.agent.not_ready,
        ["no service has its VIP and a backend that takes new flows"]
    );
    let mut wanted = model(1);
    wanted.ready_when = ReadyWhen::Attached;
    assert!(agent.handle.reload(wanted).await.unwrap().is_ok());
    assert!(agent.handle.status().await.unwrap().agent.ready);
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_not_ready_before_the_first_checks_are_done() {
    let mut attached = model(2);
    attached.ready_when = ReadyWhen::Attached;
    let setting = Setting::new(Fake::default());
    setting.results.send(result(1, true)).await.unwrap();
    let agent = setting.start(attached.clone()).await.unwrap();
    let reasons = agent.handle.status().await.unwrap().agent.not_ready;
    assert!(
        reasons.len() == 1 && reasons[0].contains("not been checked"),
        "{reasons:?}"
    );
    agent.results.send(result(2, false)).await.unwrap();
    agent.settle().await;
    assert!(agent.handle.status().await.unwrap().agent.ready);
    attached.pools[0].backends.push(backend(3));
    assert!(agent.handle.reload(attached).await.unwrap().is_ok());
    assert!(
        agent.handle.status().await.unwrap().agent.ready,
        "a backend that is added takes nothing from the others"
    );
}
