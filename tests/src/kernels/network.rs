//! What is around a guest: a client, servers, and a bridge that has the guest's taps as ports. All of it in network
//! namespaces of this run.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::link::{self, Interface};
use crate::netns::Netns;
use crate::topology::{BALANCER, CLIENT, GATEWAY, Host};

/// The bridge.
const BRIDGE: &str = "br0";

/// The network of a guest; gone when dropped.
pub(super) struct Network {
    /// Where requests come from.
    pub(super) client: Host,
    /// Where servers run.
    pub(super) servers: Vec<Host>,
    /// Where the bridge is, and QEMU runs.
    pub(super) switch: Netns,
}

impl Network {
    /// Makes one with so many servers.
    ///
    /// # Errors
    /// Those of the commands that make it.
    pub(super) fn new(servers: usize) -> Result<Self> {
        let switch = Netns::new("switch")?;
        link::bridge(Interface {
            netns: &switch,
            name: BRIDGE,
        })?;
        let client = host(&switch, "client", CLIENT)?;
        let route = format!("route add 10.2.0.0/24 via {BALANCER}");
        client.netns.ip(&route)?;
        let mut hosts = Vec::new();
        for number in 0..servers {
            let address = Ipv4Addr::new(10, 2, 0, u8::try_from(11 + number)?);
            let server = host(&switch, &format!("server{number}"), address)?;
            server
                .netns
                .ip(&format!("route add default via {GATEWAY}"))?;
            hosts.push(server);
        }
        Ok(Self {
            client,
            servers: hosts,
            switch,
        })
    }

    /// Makes the tap of a guest's NIC. QEMU opens it with the header of virtio on each frame, so that the guest's offloads
    /// work as they do on a real host.
    pub(super) fn add_tap(&self, number: usize, queues: usize) -> Result<()> {
        let tap = tap(number);
        let several = if queues > 1 { " multi_queue" } else { "" };
        self.switch
            .ip(&format!("tuntap add dev {tap} mode tap vnet_hdr{several}"))?;
        let port = Interface {
            netns: &self.switch,
            name: &tap,
        };
        port.join(BRIDGE)?;
        port.up()
    }

    /// Lets client and servers forget on which of its NICs the guest was.
    ///
    /// # Errors
    /// That of `ip`.
    pub(super) fn forget(&self) -> Result<()> {
        for host in self.servers.iter().chain([&self.client]) {
            host.netns.ip("neighbour flush all")?;
        }
        Ok(())
    }
}

/// A host with one interface, which is connected to the bridge.
fn host(switch: &Netns, role: &str, address: Ipv4Addr) -> Result<Host> {
    let host = Host {
        netns: Netns::new(role)?,
        interface: "eth0".to_owned(),
        address,
    };
    let port = Interface {
        netns: switch,
        name: role,
    };
    link::veth(host.link(), port)?;
    port.join(BRIDGE)?;
    host.link().add_address(&format!("{address}/24"))?;
    Ok(host)
}

/// The name of the tap of a guest's NIC.
pub(super) fn tap(number: usize) -> String {
    format!("tap{number}")
}
