//! A client, a place for what carries its packets, and servers; each carrier has a network of its own.
//!
//! ```text
//! client eth0 ── front [carrier] back ── eth0 servers: two nginx, two addresses, one iperf3
//! ```
//!
//! The servers share a namespace, so that nothing but the carrier stands between the two links: a bridge would cost each
//! of them the same and hide a part of what they differ by. Segmentation and checksum offloads are off at every end, for
//! every carrier: a veth that sends to XDP can't have them. Every end receives by NAPI: where XDP is attached that comes
//! with it, elsewhere by GRO.

use std::net::Ipv4Addr;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::cpu_time::Receivers;
use crate::command;
use crate::http::Client;
use crate::iperf;
use crate::link::{self, Interface};
use crate::netns::Netns;
use crate::nginx::{self, Nginx};
use crate::topology::{BALANCER, GATEWAY, Host};

/// Where the service is. Clients route to it: no interface need have it.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
/// The servers' addresses.
pub(super) const SERVERS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)];

/// A network with its servers, and nothing in the middle yet; gone when dropped.
pub(super) struct Network {
    /// Where requests come from.
    pub(super) client: Netns,
    /// Where the carrier is.
    pub(super) middle: Netns,
    /// Where they go.
    pub(super) servers: Netns,
    /// The carrier's interface towards the client; a name that no other network of the machine has.
    pub(super) front: String,
    /// The carrier's interface towards the servers.
    pub(super) back: String,
    /// The client's interface.
    near: String,
    /// The servers' interface.
    far: String,
    nginx: Vec<Nginx>,
    _iperf: iperf::Server,
    /// Addresses that the client has had.
    clients: AtomicU8,
    /// CPUs of the client and of the servers.
    cpus: (usize, usize),
}

/// What the servers' counters say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Served {
    /// Connections taken, those of all servers.
    pub(super) connections: u64,
    /// Requests, by server.
    pub(super) requests: [u64; SERVERS.len()],
}

impl Network {
    /// Makes a network.
    ///
    /// # Errors
    /// Those of the commands, and where the machine has but one CPU.
    pub(super) fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("{side}{number}-{}", process::id());
        let (client, middle) = (Netns::new("client")?, Netns::new("carrier")?);
        let servers = Netns::new("servers")?;
        let (front, back, near, far) = (name("f"), name("b"), name("c"), name("s"));
        for (inside, outside) in [(&front, (&client, &near)), (&back, (&servers, &far))] {
            let inside = Interface {
                netns: &middle,
                name: inside,
            };
            let (netns, name) = outside;
            let outside = Interface { netns, name };
            link::veth(inside, outside)?;
            for end in [inside, outside] {
                end.offload("tx", false)?;
            }
        }
        for netns in [&client, &middle, &servers] {
            // A connection that is over leaves nothing behind: the ports of one run are free for the next.
            netns.sysctl("ipv4/tcp_max_tw_buckets", "0")?;
            netns.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
            netns.sysctl("core/somaxconn", "65535")?;
            netns.sysctl("ipv4/tcp_max_syn_backlog", "65535")?;
        }
        let (near_end, far_end) = (
            Interface {
                netns: &client,
                name: &near,
            },
            Interface {
                netns: &servers,
                name: &far,
            },
        );
        near_end.add_address("10.1.0.10/16")?;
        client.ip(&format!("route add default via {BALANCER}"))?;
        for address in SERVERS {
            far_end.add_address(&format!("{address}/24"))?;
        }
        servers.ip(&format!("route add default via {GATEWAY}"))?;
        let cpus = cpus()?;
        let host = |address| Host {
            netns: servers.clone(),
            interface: far.clone(),
            address,
        };
        let mut running = Vec::new();
        for (number, address) in SERVERS.into_iter().enumerate() {
            let nginx = Nginx::start_at_address(&host(address), &format!("web{number}"))?;
            let pid = i32::try_from(nginx.pid()).ok().and_then(Pid::from_raw);
            sched_setaffinity(pid, &only(cpus.1)).context("keeping nginx on a CPU")?;
            running.push(nginx);
        }
        Ok(Self {
            nginx: running,
            _iperf: iperf::Server::start(&host(SERVERS[0]))?,
            client,
            middle,
            servers,
            front,
            back,
            near,
            far,
            clients: AtomicU8::new(0),
            cpus,
        })
    }

    /// The four ends of the links, the carrier's first.
    pub(super) fn ends(&self) -> [Interface<'_>; 4] {
        [
            self.inside(&self.front),
            self.inside(&self.back),
            self.near(),
            self.far(),
        ]
    }

    /// An interface of the carrier's.
    pub(super) fn inside<'a>(&'a self, name: &'a str) -> Interface<'a> {
        Interface {
            netns: &self.middle,
            name,
        }
    }

    /// The client's interface.
    pub(super) fn near(&self) -> Interface<'_> {
        Interface {
            netns: &self.client,
            name: &self.near,
        }
    }

    /// The servers' interface.
    pub(super) fn far(&self) -> Interface<'_> {
        Interface {
            netns: &self.servers,
            name: &self.far,
        }
    }

    /// Lets every end receive by NAPI where there is no XDP on it.
    ///
    /// # Errors
    /// Those of `ethtool`.
    pub(super) fn receive_by_napi(&self) -> Result<()> {
        self.ends()
            .into_iter()
            .try_for_each(|end| end.offload("gro", true))
    }

    /// Gives the carrier's interfaces their addresses, and lets the kernel route between them.
    ///
    /// # Errors
    /// Those of the commands.
    pub(super) fn be_a_router(&self) -> Result<()> {
        self.inside(&self.front)
            .add_address(&format!("{BALANCER}/16"))?;
        self.inside(&self.back)
            .add_address(&format!("{GATEWAY}/24"))?;
        self.middle.sysctl("ipv4/ip_forward", "1")
    }

    /// From now on the client has an address that it never had: neither the servers nor the carrier know its ports.
    ///
    /// # Errors
    /// Those of the commands.
    pub(super) fn new_client(&self) -> Result<()> {
        let number = self.clients.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(10, 1, 1 + number / 200, 1 + number % 200);
        self.near().add_address(&format!("{address}/32"))?;
        self.client.ip(&format!(
            "route replace default via {BALANCER} src {address}"
        ))?;
        Ok(())
    }

    /// What the servers count. To ask is a connection and a request to each.
    ///
    /// # Errors
    /// Where one does not answer.
    pub(super) fn served(&self) -> Result<Served> {
        let mut served = Served::default();
        for (nginx, requests) in self.nginx.iter().zip(&mut served.requests) {
            let answer = Client::new(&self.servers, nginx.address()).get(nginx::COUNTERS)?;
            let counters = answer
                .body
                .lines()
                .nth(2)
                .map(|line| line.split_whitespace().map(str::parse));
            let counters: Vec<u64> = counters.context("no counters")?.collect::<Result<_, _>>()?;
            ensure!(counters.len() == 3, "nginx answered {answer:?}");
            served.connections += counters[0];
            *requests = counters[2];
        }
        Ok(served)
    }

    /// CPUs of the client and of the servers.
    pub(super) fn cpus(&self) -> (usize, usize) {
        self.cpus
    }

    /// Switches the offloads of every end.
    ///
    /// # Errors
    /// Those of `ethtool`.
    pub(super) fn offload(&self, on: bool) -> Result<()> {
        let features: &[&str] = if on { &["tx", "tso", "gso"] } else { &["tx"] };
        let mut all = self
            .ends()
            .into_iter()
            .flat_map(|end| features.iter().map(move |feature| (end, feature)));
        all.try_for_each(|(end, feature)| end.offload(feature, on))
    }

    /// Has the kernel receive in threads of its own on every end, or in passing as usual.
    ///
    /// # Errors
    /// Where an interface has no NAPI.
    pub(super) fn receive_in_threads(&self, on: bool) -> Result<()> {
        for end in self.ends() {
            let script = format!(
                "echo {} > /sys/class/net/{}/threaded",
                u8::from(on),
                end.name
            );
            // It mounts a sysfs of the namespace, which is where the switch is.
            let mut command = Command::new("ip");
            command.args(["netns", "exec", end.netns.name(), "sh", "-ec", &script]);
            command::run(&mut command)?;
        }
        if on {
            let names = self.ends().map(|end| end.name);
            Receivers::of(&names)?.prefer()?;
        }
        Ok(())
    }
}

impl Served {
    /// What was served since `before`, less what asking adds.
    pub(super) fn since(self, before: Self) -> Self {
        let servers = SERVERS.len() as u64;
        let mut requests = self.requests;
        for (now, before) in requests.iter_mut().zip(before.requests) {
            *now = now.saturating_sub(before + 1);
        }
        Self {
            connections: self
                .connections
                .saturating_sub(before.connections + servers),
            requests,
        }
    }
}

/// A CPU for the client and another for the servers.
fn cpus() -> Result<(usize, usize)> {
    let allowed = sched_getaffinity(None)?;
    let mut all = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    all.next()
        .zip(all.next_back())
        .context("one CPU for clients and one for servers are needed")
}

fn only(cpu: usize) -> CpuSet {
    let mut one = CpuSet::new();
    one.set(cpu);
    one
}
