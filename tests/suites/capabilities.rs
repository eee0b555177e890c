//! The agent with no more rights than its systemd unit gives it.

use anyhow::{Result, ensure};
use lb_tests::agent::config::Check;
use lb_tests::agent::{Agent, Config};
use lb_tests::http::{self, Client};
use lb_tests::nginx::Nginx;
use lb_tests::topology::{Arms, SPARE_VIP, Topology};

/// Root in name, with three capabilities: what `CapabilityBoundingSet=` of the unit leaves.
const THREE: &str =
    "setpriv --bounding-set=-all,+bpf,+net_admin,+perfmon --inh-caps=-all --no-new-privs";

#[test]
fn bpf_net_admin_and_perfmon_are_enough() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let _servers = Nginx::on_each(&topology.backends)?;
    let mut config = Config::web(&topology, Some(Check::http().patient()));
    config.manage_addresses = true;
    config.services[0].address.set_ip(SPARE_VIP);
    let mut agent = Agent::prepare(&topology.balancer.netns, &config)?.wrapped(THREE);
    agent.launch()?;
    agent.wait_for_state("www", "web0", "up")?;
    agent.wait_for_state("www", "web1", "up")?;
    let effective = effective_capabilities(&agent)?;
    assert_eq!(
        effective,
        (1 << 12) | (1 << 38) | (1 << 39),
        "{effective:#x}"
    );
    let client = Client::new(&topology.client.netns, (SPARE_VIP, 80));
    let tally = http::tally(&client.sequence(10)?);
    assert_eq!(
        tally,
        [("web0".to_owned(), 5), ("web1".to_owned(), 5)].into()
    );

    // The same holds for adopting what an earlier one left, for a reload that replaces the program, and for the end.
    agent.kill()?;
    agent.launch()?;
    ensure!(agent.status()?.agent.adopted, "not adopted");
    config.data_plane_log = Some("info".to_owned());
    agent.reload(&config)?;
    assert_eq!(http::tally(&client.sequence(10)?).len(), 2);
    ensure!(agent.terminate()?.success(), "SIGTERM");
    let pins = agent.scratch().pins()?;
    ensure!(pins.is_empty(), "pins stay: {pins:?}");
    Ok(())
}

/// The bits of the running agent's effective set.
fn effective_capabilities(agent: &Agent) -> Result<u64> {
    let pid = agent.status()?.agent.pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    Ok(u64::from_str_radix(line.unwrap_or_default(), 16)?)
}
