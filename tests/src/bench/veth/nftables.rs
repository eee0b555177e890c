//! The same service by the kernel's own means: destination NAT that deals backends in turn, and a router's routes.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use lb_common::abi::Protocol;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

use crate::bench::packets::VIP;
use crate::bench::world::{backend_addresses, backend_port, service_port};
use crate::command;
use crate::netns::Netns;

/// Protocol of every frame here.
pub(super) const PROTOCOL: Protocol = Protocol::Udp;

/// Makes a namespace a router that translates.
///
/// # Errors
/// Those of the commands.
pub(super) fn configure(netns: &Netns, names: &[&str]) -> Result<()> {
    let (front, back) = (names[0], names[names.len() - 1]);
    netns.sysctl("ipv4/ip_forward", "1")?;
    for scope in ["all", front, back] {
        netns.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        netns.sysctl(&format!("ipv4/conf/{scope}/send_redirects"), "0")?;
    }
    // Neither clients nor backends exist; a gateway with a MAC address stands for all of each.
    for (name, network, subnet) in [(front, "10.0.0.0/8", 0), (back, "172.16.0.0/16", 1)] {
        let gateway = Ipv4Addr::new(198, 18, subnet, 2);
        netns.ip(&format!("address add 198.18.{subnet}.1/24 dev {name}"))?;
        netns.ip(&format!(
            "neigh add {gateway} lladdr 02:00:00:00:01:01 dev {name}"
        ))?;
        netns.ip(&format!("route add {network} via {gateway} dev {name}"))?;
    }
    command::run(netns.command("nft").arg(rules()))?;
    Ok(())
}

fn rules() -> String {
    let backends: Vec<_> = backend_addresses()
        .enumerate()
        .map(|(number, address)| format!("{number} : {address}"))
        .collect();
    format!(
        "table ip bench {{ chain prerouting {{ type nat hook prerouting priority dstnat; \
         ip daddr {VIP} udp dport {} dnat to numgen inc mod {} map {{ {} }} : {}; }}; }}",
        service_port(PROTOCOL),
        backends.len(),
        backends.join(", "),
        backend_port(PROTOCOL),
    )
}

/// Forgets every flow that a namespace tracks, by a request to delete that names none (`nfnetlink_conntrack.h`).
///
/// # Errors
/// Those of the kernel.
pub(in crate::bench) fn forget(netns: &Netns) -> Result<()> {
    netns.run(flush)?.context("flushing conntrack")
}

fn flush() -> Result<()> {
    /// `NFNL_SUBSYS_CTNETLINK` in the upper byte, `IPCTNL_MSG_CT_DELETE` in the lower.
    const DELETE: u16 = 1 << 8 | 2;
    /// `NLM_F_REQUEST` and `NLM_F_ACK`.
    const FLAGS: u16 = 1 | 4;
    /// Of `struct nlmsghdr`.
    const HEADER: usize = 16;
    /// With `struct nfgenmsg`: IPv4, version 0, nothing more.
    const LENGTH: u8 = 20;

    let socket = socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(netlink::NETFILTER),
    )?;
    let mut request = [0; LENGTH as usize];
    request[0] = LENGTH;
    request[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    request[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    request[HEADER] = 2;
    send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0; 64];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    // An `NLMSG_ERROR` with code 0 says that it is done.
    let code = answer[..length].get(HEADER..HEADER + 4);
    ensure!(
        code == Some(&[0; 4]),
        "the kernel answered {:02x?}",
        &answer[..length]
    );
    Ok(())
}
