//! The kernel's redirects while the program runs one-arm.

use super::*;

#[tokio::test(start_paused = true)]
async fn redirects_are_off_while_one_interface_carries_clients_and_servers() {
    let agent = running(1).await;
    let quiet = || agent.plane.state().quiet.clone();
    assert_eq!(quiet().as_deref(), Some("eth0"));
    agent
        .host
        .0
        .lock()
        .unwrap()
        .links
        .insert("eth1".to_owned(), 3);
    let mut two_arm = model(1);
    two_arm.interfaces.push(Interface {
        name: "eth1".to_owned(),
        mode: AttachMode::Auto,
    });
    agent.handle.reload(two_arm).await.unwrap().unwrap();
    assert_eq!(quiet(), None, "clients and servers have an interface each");
    agent.handle.reload(model(1)).await.unwrap().unwrap();
    assert_eq!(quiet().as_deref(), Some("eth0"));
    // Somebody applies his own settings again.
    agent.plane.state().quiet = None;
    sleep(Duration::from_secs(31)).await;
    assert_eq!(quiet().as_deref(), Some("eth0"));
    agent.handle.shutdown().await.unwrap().unwrap();
    assert_eq!(quiet(), None);
}

#[tokio::test(start_paused = true)]
async fn redirects_that_stay_on_are_told_for_as_long_as_the_host_forwards() {
    let setting = Setting::new(Fake::default());
    setting.plane.state().read_only = true;
    let agent = setting.start(model(1)).await.unwrap();
    let notices = async || {
        let report = agent.handle.status().await.unwrap();
        report.interfaces[0].notices.clone()
    };
    let told = notices().await;
    assert!(
        told.len() == 1 && told[0].contains("help: `sysctl`"),
        "{told:?}"
    );
    agent.host.0.lock().unwrap().forwards_not = true;
    agent.network_changed().await;
    assert_eq!(notices().await, [""; 0]);
    agent.host.0.lock().unwrap().forwards_not = false;
    agent.network_changed().await;
    assert_eq!(notices().await.len(), 1);
    agent.plane.state().read_only = false;
    sleep(Duration::from_secs(31)).await;
    assert_eq!(notices().await, [""; 0]);
}
