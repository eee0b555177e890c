//! Next hops come and change: MAC addresses follow at once, also for flows that are there.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use lb_tests::frames::Mac;
use lb_tests::http::load::Load;
use lb_tests::http::{self, Client};
use lb_tests::lateness::Lateness;
use lb_tests::poll::{self, SOON};
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

#[test]
fn a_backends_new_mac_address_reaches_old_flows_at_once() -> Result<()> {
    let web = Web::start(Topology::alone(Arms::Two, 2)?, None)?;
    let lateness = [
        Lateness::of(web.agent.pid()?)?,
        Lateness::of_this_process()?,
    ];
    let sessions = Load::sessions(&web.client(), 4, Duration::from_millis(5));
    settled(&sessions)?;
    let backend = &web.topology.backends[0];
    let mac = Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
    // The host announces its new address by a gratuitous ARP, as one that took over from another does.
    backend.netns.sysctl("ipv4/conf/eth0/arp_notify", "1")?;
    let changed = SystemTime::now();
    backend.link().set_mac(mac)?;
    settled_since(&sessions, changed)?;
    let row = web.agent.backend("www", "web0")?;
    assert_eq!(row.next_hop, Some(mac.to_string()), "{row:?}");
    let exchanges = sessions.stop()?;
    let failures = http::failures(&exchanges);
    assert!(failures.is_empty(), "{failures:#?}");
    let slowest = exchanges.iter().map(|one| one.took).max();
    // What was under way is retransmitted after TCP's shortest timeout, 200 ms, and twice that.
    let [agent, client] = lateness.map(|one| one.so_far());
    let allowed = Duration::from_millis(700) + agent? + client?;
    assert!(
        slowest < Some(allowed),
        "the slowest answer took {slowest:?}, allowed {allowed:?}"
    );
    Ok(())
}

#[test]
fn a_silent_change_of_mac_is_found_by_probing() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    // The kernel's usual pace, half a minute of belief and five seconds of doubt, at ten times the speed.
    let balancer = &topology.balancer.netns;
    balancer.sysctl("ipv4/neigh/back/base_reachable_time_ms", "3000")?;
    balancer.sysctl("ipv4/neigh/back/delay_first_probe_time", "1")?;
    let web = Web::start(topology, None)?;
    // No word to anybody.
    let mac = Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x66]);
    web.topology.backends[0].link().set_mac(mac)?;
    let client = web.client().patience(Duration::from_millis(500));
    poll::until(
        Duration::from_mins(1),
        "an answer from the new address",
        || client.get("/").map(drop),
    )?;
    let row = web.agent.backend("www", "web0")?;
    assert_eq!(row.next_hop, Some(mac.to_string()), "{row:?}");
    Ok(())
}

#[test]
fn a_backend_that_is_not_there_yet_serves_as_soon_as_it_is() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    topology.backends[1].link().down()?;
    let config = lb_tests::agent::Config::web(&topology, None);
    let _servers = lb_tests::nginx::Nginx::start(&topology.backends[0], "web0")?;
    let agent = lb_tests::agent::Agent::start(&topology.balancer.netns, &config)?;
    let row = agent.backend("www", "web1")?;
    assert_eq!(row.next_hop, None, "{row:?}");
    let client = Client::new(&topology.client.netns, (lb_tests::topology::VIP, 80));
    let client = client.patience(Duration::from_secs(1));
    let tally = http::tally(&client.sequence(4)?);
    assert_eq!(tally.get("web0"), Some(&2), "{tally:?}");

    topology.backends[1].link().up()?;
    topology.backends[1]
        .netns
        .ip("route add default via 10.2.0.1")?;
    let _late = lb_tests::nginx::Nginx::start(&topology.backends[1], "web1")?;
    poll::until(SOON, "web1 to answer", || {
        let tally = http::tally(&client.sequence(2)?);
        ensure!(tally.contains_key("web1"), "{tally:?}");
        Ok(())
    })?;
    let row = agent.backend("www", "web1")?;
    let mac = topology.backends[1].link().mac()?;
    assert_eq!(row.next_hop, Some(mac.to_string()), "{row:?}");
    Ok(())
}

/// Every session has had an answer.
fn settled(sessions: &Load) -> Result<()> {
    settled_since(sessions, SystemTime::UNIX_EPOCH)
}

fn settled_since(sessions: &Load, from: SystemTime) -> Result<()> {
    poll::until(SOON, "answers on all four sessions", || {
        let exchanges = sessions.since(from);
        let answered = (0..4).filter(|number| {
            exchanges
                .iter()
                .any(|one| one.connection == *number && one.server().is_ok())
        });
        let count = answered.count();
        ensure!(count == 4, "{count} answered");
        Ok(())
    })
}
