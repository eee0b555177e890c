//! One-arm on a host that forwards: its ICMP redirects would lead servers past the balancer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::agent::{Agent, Config};
use lb_tests::http;
use lb_tests::poll::{self, SOON};
use lb_tests::scratch::Scratch;
use lb_tests::topology::{Arms, CLIENT, Topology};
use lb_tests::web::Web;

/// A redirect is in the route cache well within this time.
const A_WHILE: Duration = Duration::from_secs(2);

#[test]
fn servers_are_not_led_past_a_one_arm_balancer() -> Result<()> {
    let topology = inviting()?;
    // Without the agent the server is told, and believes it.
    poll::until(SOON, "a redirect", || {
        talk(&topology)?;
        ensure!(is_redirected(&topology)?, "none");
        Ok(())
    })?;
    topology.backends[0].netns.ip("route flush cache")?;
    ensure!(!is_redirected(&topology)?, "the cache is not empty");

    let config = Config::web(&topology, None);
    let mut web = Web::with_config(topology, &config)?;
    assert_eq!(parameters(&web.topology)?, ["0", "0"]);
    poll::throughout(A_WHILE, "a server that is not redirected", || {
        talk(&web.topology)?;
        ensure!(!is_redirected(&web.topology)?, "it was");
        Ok(())
    })?;
    assert_eq!(http::failures(&web.client().sequence(10)?).len(), 0);

    // What was, is again when the last one detaches, whoever switched it off.
    web.agent.kill()?;
    assert_eq!(parameters(&web.topology)?, ["0", "0"]);
    web.agent.launch()?;
    assert_eq!(parameters(&web.topology)?, ["0", "0"]);
    ensure!(web.agent.terminate()?.success(), "SIGTERM");
    assert_eq!(parameters(&web.topology)?, ["1", "1"]);
    let pins = web.agent.scratch().pins()?;
    ensure!(pins.is_empty(), "{pins:?}");
    Ok(())
}

#[test]
fn what_redirects_were_outlives_pins_that_are_removed_by_hand() -> Result<()> {
    let topology = inviting()?;
    let config = Config::web(&topology, None);
    let mut web = Web::with_config(topology, &config)?;
    let directory = web.agent.scratch().bpffs().join("lb/lb");
    let before = web.agent.scratch().pins()?;
    for path in [directory.join("send_redirects"), directory] {
        if path.is_symlink() {
            std::fs::remove_file(&path)?;
        } else {
            std::fs::remove_dir_all(&path)?;
        }
        poll::until(SOON, format!("{} to be back", path.display()), || {
            let now = web.agent.scratch().pins()?;
            ensure!(now == before, "{now:?}");
            Ok(())
        })?;
    }
    // The next agent reads it.
    web.agent.kill()?;
    web.agent.launch()?;
    ensure!(web.agent.terminate()?.success(), "SIGTERM");
    assert_eq!(parameters(&web.topology)?, ["1", "1"]);
    Ok(())
}

#[test]
fn detach_without_an_agent_brings_redirects_back() -> Result<()> {
    let topology = inviting()?;
    let mut agent = Agent::start(&topology.balancer.netns, &Config::web(&topology, None))?;
    assert_eq!(parameters(&topology)?, ["0", "0"]);
    agent.kill()?;
    agent.detach()?;
    assert_eq!(parameters(&topology)?, ["1", "1"]);
    Ok(())
}

#[test]
fn two_arms_leave_redirects_alone() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    topology
        .balancer
        .netns
        .sysctl("ipv4/conf/all/send_redirects", "1")?;
    let _agent = Agent::start(&topology.balancer.netns, &Config::web(&topology, None))?;
    assert_eq!(parameter(&topology, "all")?, "1");
    Ok(())
}

#[test]
fn where_the_agent_may_not_it_says_what_to_type() -> Result<()> {
    let topology = inviting()?;
    // As a unit with ProtectKernelTunables sees it.
    let scratch = Scratch::new("read-only")?;
    let script = scratch.write(
        "read-only.sh",
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"",
    )?;
    let wrapper = format!("unshare --mount sh {}", script.display());
    let config = Config::web(&topology, None);
    let mut agent = Agent::prepare(&topology.balancer.netns, &config)?.wrapped(&wrapper);
    agent.launch()?;
    let status = agent.status()?;
    let notices = &status.interfaces[0].notices;
    let command =
        "`sysctl -w net/ipv4/conf/all/send_redirects=0 net/ipv4/conf/eth0/send_redirects=0`";
    ensure!(
        notices.iter().any(|notice| notice.contains(command)),
        "{notices:?}"
    );
    let warned = agent
        .events()?
        .into_iter()
        .any(|event| event.field("level") == "WARN" && event.message().contains(command));
    ensure!(warned, "no warning");
    // And the command is one.
    let line = command.trim_matches('`');
    topology.balancer.netns.exec(line)?;
    assert_eq!(parameters(&topology)?, ["0", "0"]);
    Ok(())
}

/// A one-arm network as it comes: the balancer forwards and sends redirects, and the server takes them.
fn inviting() -> Result<Topology> {
    let topology = Topology::new(Arms::One, 1)?;
    for scope in ["all", "eth0"] {
        let of = |name: &str| format!("ipv4/conf/{scope}/{name}");
        topology.balancer.netns.sysctl(&of("send_redirects"), "1")?;
        topology.backends[0]
            .netns
            .sysctl(&of("secure_redirects"), "0")?;
        topology.backends[0]
            .netns
            .sysctl(&of("accept_redirects"), "1")?;
    }
    Ok(topology)
}

/// The server sends the client something of its own, which the balancer's kernel forwards.
fn talk(topology: &Topology) -> Result<()> {
    let netns = &topology.backends[0].netns;
    netns.run(|| -> Result<()> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"hello", (CLIENT, 9))?;
        Ok(())
    })?
}

fn is_redirected(topology: &Topology) -> Result<bool> {
    let route = topology.backends[0]
        .netns
        .ip(&format!("route get {CLIENT}"))?;
    Ok(route.contains("redirected"))
}

/// `send_redirects` of all interfaces and of the balancer's.
fn parameters(topology: &Topology) -> Result<[String; 2]> {
    Ok([parameter(topology, "all")?, parameter(topology, "eth0")?])
}

fn parameter(topology: &Topology, scope: &str) -> Result<String> {
    let path = Path::new("/proc/sys/net/ipv4/conf")
        .join(scope)
        .join("send_redirects");
    let text = topology
        .balancer
        .netns
        .run(|| std::fs::read_to_string(&path))?;
    Ok(text
        .with_context(|| path.display().to_string())?
        .trim()
        .to_owned())
}
