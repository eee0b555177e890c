//! What carries packets between client and servers: the balancer, the peers that a user might take instead, and the
//! two that only show what the rest costs.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::xdp::DevMap;
use aya::programs::XdpMode;

use super::network::{Network, SERVERS, VIP};
use crate::agent::config::{Backend, Check, Pool, Service};
use crate::agent::{Agent, Config};
use crate::bench::object::{map, xdp};
use crate::bench::veth::{end::index, nftables};
use crate::command;
use crate::daemon::Daemon;
use crate::frames::Mac;
use crate::http::Client;
use crate::iperf;
use crate::nginx::PORT;
use crate::pass::{self, XdpPass};
use crate::poll;
use crate::scratch::Scratch;
use crate::topology::{BALANCER, GATEWAY};

/// The MAC address at both outer ends of a bare redirect, which swaps the addresses of every frame.
const OUTSIDE: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// That of the carrier there: any other.
const INSIDE: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// `HAProxy` holds two descriptors a connection, and the least limit of a shell is 1,024.
const MAXCONN: u32 = 400;
/// How long a carrier may take to work.
const START: Duration = Duration::from_secs(10);

/// One of those compared, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The kernel routes, and does nothing else. The client names the servers.
    Direct,
    /// XDP programs send every frame on to the other interface, unseen. The client names the servers.
    Redirect,
    /// The product: `lb run`.
    Balancer,
    /// Destination NAT in turn.
    Nftables,
    /// A proxy in TCP mode.
    Haproxy,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Direct,
        Self::Redirect,
        Self::Balancer,
        Self::Nftables,
        Self::Haproxy,
    ];

    /// As it stands in names of rows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Redirect => "redirect",
            Self::Balancer => "lb",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether it chooses a server by itself.
    pub(super) fn balances(self) -> bool {
        !matches!(self, Self::Direct | Self::Redirect)
    }
}

/// A network with a carrier in it; gone when dropped.
pub(super) struct Carrier {
    works: Works,
    /// The network.
    pub(super) network: Network,
}

enum Works {
    Direct,
    Redirect {
        _objects: Vec<Ebpf>,
        _passes: [XdpPass; 2],
    },
    Balancer {
        agent: Box<Agent>,
        pid: u32,
        _passes: [XdpPass; 2],
    },
    Nftables,
    Haproxy {
        daemon: Daemon,
        _scratch: Scratch,
    },
}

impl Carrier {
    /// Makes a network and puts a carrier in it that works.
    ///
    /// # Errors
    /// Where a part does not come up, with what it said.
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let network = Network::new()?;
        let works = match kind {
            Kind::Direct => direct(&network)?,
            Kind::Redirect => redirect(&network)?,
            Kind::Balancer => balancer(&network)?,
            Kind::Nftables => nftables(&network)?,
            Kind::Haproxy => haproxy(&network)?,
        };
        let target = if kind.balances() { VIP } else { SERVERS[0] };
        poll::until(START, "an answer", || answers(&network, target))?;
        Ok(Self { works, network })
    }

    /// Forgets what earlier runs left where that would slow the next.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn forget(&self) -> Result<()> {
        match self.works {
            Works::Nftables => nftables::forget(&self.network.middle),
            _ => Ok(()),
        }
    }

    /// The process that belongs to what is measured.
    pub(super) fn process(&self) -> Option<u32> {
        match &self.works {
            Works::Haproxy { daemon, .. } => Some(daemon.pid()),
            Works::Balancer { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    /// How many flows it has made since it was, and packets it dropped, where it counts them.
    ///
    /// # Errors
    /// Where it does not say.
    pub(super) fn counters(&self) -> Result<Option<(u64, u64)>> {
        Ok(match &self.works {
            Works::Balancer { agent, .. } => {
                let status = agent.status()?;
                let flows = status
                    .services
                    .iter()
                    .map(|service| service.traffic.new_flows);
                Some((flows.sum(), status.drops.values().sum()))
            }
            Works::Nftables => {
                let rules = self
                    .network
                    .middle
                    .exec("nft list chain ip bench prerouting")?;
                let mut words = rules
                    .split_whitespace()
                    .skip_while(|word| *word != "packets");
                let packets = words.nth(1).context("no counter")?;
                // Only the first packet of a connection comes to the rules.
                Some((packets.parse().with_context(|| rules.clone())?, 0))
            }
            _ => None,
        })
    }
}

fn direct(network: &Network) -> Result<Works> {
    network.be_a_router()?;
    network.receive_by_napi()?;
    Ok(Works::Direct)
}

fn nftables(network: &Network) -> Result<Works> {
    network.be_a_router()?;
    network.receive_by_napi()?;
    let [first, second] = SERVERS;
    let rules = format!(
        "table ip bench {{ chain prerouting {{ type nat hook prerouting priority dstnat; \
         ip daddr {VIP} tcp dport {PORT} counter dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }} : {PORT}; \
         ip daddr {VIP} tcp dport {} dnat to {first}; }}; }}",
        iperf::PORT
    );
    command::run(network.middle.command("nft").arg(rules))?;
    Ok(Works::Nftables)
}

/// Client and servers take each other's frames for the router's.
fn redirect(network: &Network) -> Result<Works> {
    for (end, gateway) in [(network.near(), BALANCER), (network.far(), GATEWAY)] {
        end.set_mac(OUTSIDE)?;
        end.netns.ip(&format!(
            "neigh replace {gateway} lladdr {INSIDE} dev {}",
            end.name
        ))?;
    }
    let mut objects = Vec::new();
    for (from, to) in [
        (&network.front, &network.back),
        (&network.back, &network.front),
    ] {
        let mut object = Ebpf::load(pass::OBJECT).context("loading the harness' object")?;
        let (from, to) = (network.inside(from), index(network.inside(to))?);
        let mut across = DevMap::try_from(map(&mut object, "ACROSS")?)?;
        from.netns.run(|| across.set(0, to, None, 0))??;
        let program = xdp(&mut object, "cross")?;
        program.load()?;
        let attach = || program.attach(from.name, XdpMode::Driver).map(drop);
        from.netns
            .run(attach)?
            .context("attaching the bare program")?;
        objects.push(object);
    }
    Ok(Works::Redirect {
        _objects: objects,
        _passes: receive_from_xdp(network)?,
    })
}

fn balancer(network: &Network) -> Result<Works> {
    network.be_a_router()?;
    let passes = receive_from_xdp(network)?;
    let backend = |(number, address): (usize, _)| Backend {
        name: format!("web{number}"),
        address: (address, PORT).into(),
        weight: 1,
    };
    let web = Pool {
        name: "web".to_owned(),
        // As often as by default.
        check: Some(Check {
            interval: Duration::from_secs(1),
            ..Check::tcp()
        }),
        backends: SERVERS.into_iter().enumerate().map(backend).collect(),
    };
    let iperf = Backend {
        name: "iperf".to_owned(),
        address: (SERVERS[0], iperf::PORT).into(),
        weight: 1,
    };
    let iperf = Pool {
        name: "iperf".to_owned(),
        check: None,
        backends: vec![iperf],
    };
    let service = |name: &str, port, pool: &str| Service {
        address: SocketAddrV4::new(VIP, port),
        ..Service::tcp(name, port, pool)
    };
    let config = Config {
        instance: None,
        manage_addresses: false,
        metrics: None,
        data_plane_log: None,
        flow_entries: None,
        interfaces: [&network.front, &network.back]
            .map(|name| (name.clone(), "native".to_owned()))
            .to_vec(),
        pools: vec![web, iperf],
        services: vec![
            service("www", PORT, "web"),
            service("iperf", iperf::PORT, "iperf"),
        ],
    };
    let mut agent = Agent::start(&network.middle, &config)?;
    agent.be_quiet();
    let status = poll::until(
        Duration::from_secs(10),
        "both servers to be in rotation",
        || {
            let status = agent.status()?;
            let mut rows = status.services.iter().flat_map(|service| &service.backends);
            let all = rows
                .all(|row| row.in_rotation && row.next_hop.is_some() && row.state != "checking");
            ensure!(all, "{:#?}", status.services);
            Ok(status)
        },
    )?;
    Ok(Works::Balancer {
        agent: Box::new(agent),
        pid: status.agent.pid,
        _passes: passes,
    })
}

fn haproxy(network: &Network) -> Result<Works> {
    network.be_a_router()?;
    network.receive_by_napi()?;
    network.middle.ip(&format!("address add {VIP}/32 dev lo"))?;
    let scratch = Scratch::new("haproxy")?;
    let [first, second] = SERVERS;
    let iperf = iperf::PORT;
    let configuration = format!(
        "global
  maxconn {MAXCONN}
defaults
  mode tcp
  maxconn {MAXCONN}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind {VIP}:{PORT}
  balance roundrobin
  server web0 {first}:{PORT}
  server web1 {second}:{PORT}
listen iperf
  bind {VIP}:{iperf}
  server iperf {first}:{iperf}
"
    );
    let file = scratch.write("haproxy.cfg", &configuration)?;
    let mut command = network.middle.command("haproxy");
    command.arg("-db").arg("-f").arg(file);
    let daemon = Daemon::start(command, &scratch.file("haproxy.log"))?;
    daemon.wait_until(START, "answering", || answers(network, VIP))?;
    Ok(Works::Haproxy {
        daemon,
        _scratch: scratch,
    })
}

fn answers(network: &Network, target: Ipv4Addr) -> Result<()> {
    let answer = Client::new(&network.client, (target, PORT)).get("/")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// What a veth end needs whose peer sends it frames from XDP; its offloads are off already.
fn receive_from_xdp(network: &Network) -> Result<[XdpPass; 2]> {
    Ok([
        XdpPass::attach(network.near())?,
        XdpPass::attach(network.far())?,
    ])
}
