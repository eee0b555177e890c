//! Where in a guest the agent attaches: which interfaces are up, and what addresses they have.

use anyhow::Result;

use super::machine::Machine;
use super::network::Network;
use crate::topology::{BALANCER, GATEWAY, VIP};

/// What the program attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// The NICs themselves.
    Virtio,
    /// A veth each, whose other ends are on bridges with the NICs.
    Veth,
}

/// The part of a guest's network that checks use. All other interfaces are down meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    /// What it is called.
    pub(super) name: &'static str,
    /// What the program attaches to.
    pub(super) link: Link,
    /// The NICs, that towards the client first; one of them where it is for both sides.
    pub(super) nics: &'static [usize],
}

impl Scene {
    /// The interfaces for the agent, that towards the client first.
    #[must_use]
    pub(super) fn interfaces(&self) -> Vec<String> {
        let prefix = match self.link {
            Link::Virtio => "eth",
            Link::Veth => "veth",
        };
        let names = self.nics.iter().map(|nic| format!("{prefix}{nic}"));
        names.collect()
    }

    /// Sets a guest up, in the place of the scene that was there.
    ///
    /// # Errors
    /// Where a command fails in the guest.
    pub(super) fn set(&self, machine: &Machine, network: &Network) -> Result<()> {
        // Answers for an address come from the interface that has it alone: all NICs are on one bridge.
        machine
            .run("sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.default.arp_ignore=1")?;
        machine.run(
            "for d in $(ls /sys/class/net); do case $d in \
             lo) ;; \
             eth*) /bin/ip link set $d nomaster down; /bin/ip address flush dev $d ;; \
             br*|veth*) /bin/ip link del $d ;; \
             esac; done 2>/dev/null; true",
        )?;
        for nic in self.nics {
            if self.link == Link::Veth {
                plug_veth(machine, *nic)?;
            }
            machine.run(&format!("/bin/ip link set eth{nic} up"))?;
        }
        let interfaces = self.interfaces();
        let ends = interfaces.first().zip(interfaces.last());
        if let Some((front, back)) = ends {
            machine.run(&format!(
                "/bin/ip address add {BALANCER}/24 dev {front} && /bin/ip address add {VIP}/32 dev {front} && \
                 /bin/ip address add {GATEWAY}/24 dev {back}"
            ))?;
        }
        network.forget()
    }
}

/// A veth whose other end can take what XDP sends it, as the README says it has to be set.
fn plug_veth(machine: &Machine, nic: usize) -> Result<()> {
    let (veth, peer, bridge) = (
        format!("veth{nic}"),
        format!("vethp{nic}"),
        format!("br{nic}"),
    );
    let steps = [
        format!("/bin/ip link add {bridge} type bridge forward_delay 0"),
        format!("/bin/ip link add {veth} type veth peer name {peer}"),
        format!("ethtool -K {peer} tx off gro on"),
        format!("/bin/ip link set {peer} master {bridge}"),
        format!("/bin/ip link set eth{nic} master {bridge}"),
        format!(
            "/bin/ip link set {bridge} up && /bin/ip link set {peer} up && /bin/ip link set {veth} up"
        ),
    ];
    for step in steps {
        machine.run(&step)?;
    }
    Ok(())
}
