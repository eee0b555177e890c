//! The two networks that the suites run in.
//!
//! ```text
//! one-arm:  client ─┐                      two-arm:  client ── front [balancer] back ── bridge ─┬─ backend 0
//!                   ├─ bridge ── eth0 [balancer]                                                └─ backend 1 ..
//!       backend 0 ──┤
//!       backend 1 ──┘
//! ```
//!
//! Client and backends are in different subnets, and the balancer routes between them, so that a backend's answer
//! comes back through it: what mode `nat` needs. The VIPs are addresses of the balancer's interface towards the client.
//!
//! veth is not a NIC, and three things have to be set or traffic is lost without a word:
//! 1. An end whose peer sends it frames from XDP carries `XDP_PASS` ([`XdpPass`] says why): the client's end in
//!    two-arm, and in both the bridge's port towards the balancer.
//! 2. The same ends have `tx` checksum offload off. A veth hands over packets whose TCP or UDP checksum is still to be
//!    computed by the NIC that isn't there (`CHECKSUM_PARTIAL`: the field holds the sum of the pseudo header). XDP
//!    sees only bytes: it forwards the frame, the remark is lost, and the incremental update of a checksum that was
//!    never computed gives another wrong one. With `tx off` the kernel computes it before the frame leaves that end.
//! 3. Both ends of each pair have the same number of queues (`link::veth`).

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::link::{self, Interface};
use crate::netns::Netns;
use crate::pass::XdpPass;
use crate::turn::{self, Turn};

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The client's IPv6 address.
pub const CLIENT_V6: &str = "fd00:1::10";
/// The balancer's address towards the client.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The balancer's IPv6 address towards the client.
pub const BALANCER_V6: &str = "fd00:1::1";
/// The balancer's address towards the backends, their default gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// The VIP that most tests use, an address of the balancer.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
/// Another VIP, that no interface has.
pub const SPARE_VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 101);

/// How many NICs the balancer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// One for both sides: frames leave by `XDP_TX`.
    One,
    /// One for each side: frames leave by `XDP_REDIRECT`.
    Two,
}

/// A network with a client, a balancer and backends; gone when dropped.
pub struct Topology {
    /// Its shape.
    pub arms: Arms,
    /// Where requests come from.
    pub client: Host,
    /// Where the agent runs.
    pub balancer: Host,
    /// Where servers run.
    pub backends: Vec<Host>,
    switch: Netns,
    /// By the end that they are on.
    passes: Vec<(&'static str, XdpPass)>,
    _turn: Turn,
}

/// A namespace with one interface that matters.
pub struct Host {
    /// The namespace.
    pub netns: Netns,
    /// Its interface, on the balancer that towards the client.
    pub interface: String,
    /// The address of that interface.
    pub address: Ipv4Addr,
}

impl Topology {
    /// A network for a test that can run beside others.
    ///
    /// # Errors
    /// Those of the commands that make it.
    pub fn new(arms: Arms, backends: usize) -> Result<Self> {
        Self::build(arms, backends, turn::shared())
    }

    /// A network for a test that measures: no other test of this process runs meanwhile.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn alone(arms: Arms, backends: usize) -> Result<Self> {
        Self::build(arms, backends, turn::alone())
    }

    fn build(arms: Arms, backends: usize, turn: Turn) -> Result<Self> {
        let mut topology = Self {
            arms,
            client: Host::new("client", "eth0", CLIENT)?,
            balancer: Host::new(
                "balancer",
                if arms == Arms::One { "eth0" } else { "front" },
                BALANCER,
            )?,
            backends: (0..backends).map(Host::backend).collect::<Result<_>>()?,
            switch: Netns::new("switch")?,
            passes: Vec::new(),
            _turn: turn,
        };
        topology.wire()?;
        topology.address()?;
        Ok(topology)
    }

    /// The balancer's interfaces, that towards the client first.
    #[must_use]
    pub fn balancer_interfaces(&self) -> &'static [&'static str] {
        match self.arms {
            Arms::One => &["eth0"],
            Arms::Two => &["front", "back"],
        }
    }

    /// The end of the balancer's link to the bridge that the bridge has.
    #[must_use]
    pub fn uplink(&self) -> Interface<'_> {
        Interface {
            netns: &self.switch,
            name: UPLINK,
        }
    }

    /// Takes the balancer's NIC towards the bridge away, both ends, as if it had been pulled out of the machine.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn unplug(&mut self) -> Result<()> {
        self.passes.retain(|(end, _)| *end != UPLINK);
        self.switch.ip(&format!("link del {UPLINK}"))?;
        Ok(())
    }

    /// Puts the NIC back after [`Topology::unplug`]: the same name and addresses, another index and MAC address.
    ///
    /// # Errors
    /// Where it is there.
    pub fn replug(&mut self) -> Result<()> {
        self.plug_balancer()?;
        self.address_balancer()
    }

    /// Connects everything and sets the veth ends up for XDP.
    fn wire(&mut self) -> Result<()> {
        link::bridge(Interface {
            netns: &self.switch,
            name: BRIDGE,
        })?;
        for (number, backend) in self.backends.iter().enumerate() {
            self.plug(backend.link(), &format!("backend{number}"))?;
        }
        match self.arms {
            Arms::One => self.plug(self.client.link(), "client")?,
            Arms::Two => {
                link::veth(self.client.link(), self.balancer.link())?;
                let pass = receive_from_xdp(self.client.link())?;
                self.passes.push(("client", pass));
            }
        }
        self.plug_balancer()
    }

    fn plug_balancer(&mut self) -> Result<()> {
        self.plug(self.balancer.interface(self.back()), UPLINK)?;
        let pass = receive_from_xdp(self.uplink())?;
        self.passes.push((UPLINK, pass));
        Ok(())
    }

    /// Connects an interface to the bridge, by a port of this name.
    fn plug(&self, host: Interface<'_>, port: &str) -> Result<()> {
        let port = Interface {
            netns: &self.switch,
            name: port,
        };
        link::veth(host, port)?;
        port.join(BRIDGE)
    }

    /// The balancer's interface towards the backends.
    fn back(&self) -> &'static str {
        match self.arms {
            Arms::One => "eth0",
            Arms::Two => "back",
        }
    }

    /// Addresses, routes, and the parameters of a router and of busy servers.
    fn address(&self) -> Result<()> {
        for parameter in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            self.balancer.netns.sysctl(parameter, "1")?;
        }
        self.address_balancer()?;
        self.client.link().add_address(&format!("{CLIENT}/24"))?;
        self.client.link().add_address(&format!("{CLIENT_V6}/64"))?;
        self.client
            .netns
            .ip(&format!("route add 10.2.0.0/24 via {BALANCER}"))?;
        for backend in &self.backends {
            backend
                .link()
                .add_address(&format!("{}/24", backend.address))?;
            backend
                .netns
                .ip(&format!("route add default via {GATEWAY}"))?;
            backend.netns.sysctl("core/somaxconn", "65535")?;
            backend.netns.sysctl("ipv4/tcp_max_syn_backlog", "65535")?;
        }
        Ok(())
    }

    /// The balancer's addresses, those that an interface has already left out.
    fn address_balancer(&self) -> Result<()> {
        let front = self.balancer.link();
        let back = self.balancer.interface(self.back());
        let wanted = [
            (front, format!("{BALANCER}/24")),
            (front, format!("{BALANCER_V6}/64")),
            (front, format!("{VIP}/32")),
            (back, format!("{GATEWAY}/24")),
        ];
        for (interface, address) in wanted {
            let there = interface.addresses()?;
            if !there
                .iter()
                .any(|one| address.starts_with(&format!("{one}/")))
            {
                interface.add_address(&address)?;
            }
        }
        if self.arms == Arms::One {
            // Routing between two subnets on one link invites "send it there directly", which must not happen here.
            for scope in ["all", "eth0"] {
                let parameter = format!("ipv4/conf/{scope}/send_redirects");
                self.balancer.netns.sysctl(&parameter, "0")?;
            }
        }
        Ok(())
    }
}

/// Makes a veth end able to take what XDP sends it, points 1 and 2 of the module's words.
fn receive_from_xdp(end: Interface<'_>) -> Result<XdpPass> {
    end.offload("tx", false)?;
    XdpPass::attach(end)
}

/// The bridge.
const BRIDGE: &str = "br0";
/// The bridge's port towards the balancer.
const UPLINK: &str = "balancer";

impl Host {
    fn new(role: &str, interface: &str, address: Ipv4Addr) -> Result<Self> {
        Ok(Self {
            netns: Netns::new(role)?,
            interface: interface.to_owned(),
            address,
        })
    }

    fn backend(number: usize) -> Result<Self> {
        let last = u8::try_from(11 + number)?;
        Self::new(
            &format!("backend{number}"),
            "eth0",
            Ipv4Addr::new(10, 2, 0, last),
        )
    }

    /// Its interface.
    #[must_use]
    pub fn link(&self) -> Interface<'_> {
        self.interface(&self.interface)
    }

    /// Another of its interfaces.
    #[must_use]
    pub fn interface<'a>(&'a self, name: &'a str) -> Interface<'a> {
        Interface {
            netns: &self.netns,
            name,
        }
    }
}
