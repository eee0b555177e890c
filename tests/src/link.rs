//! Links between namespaces: veth pairs, bridges, addresses, and what an interface is told.

use anyhow::{Context, Result};

use crate::frames::Mac;
use crate::netns::Netns;

/// Queues of each direction of a veth end. Two, so that two CPUs forward at once even on a small machine; the same on
/// both ends, because XDP is refused (`ERANGE`) where an end has fewer receive queues than its peer transmit queues.
const QUEUES: usize = 2;

/// An interface in a namespace.
#[derive(Clone, Copy)]
pub struct Interface<'a> {
    /// Where it is.
    pub netns: &'a Netns,
    /// What it is called there, at most 15 bytes.
    pub name: &'a str,
}

/// Makes a veth pair and sets both ends up.
///
/// # Errors
/// That of `ip`, for instance where a name is taken.
pub fn veth(left: Interface<'_>, right: Interface<'_>) -> Result<()> {
    let queues = format!("numtxqueues {QUEUES} numrxqueues {QUEUES}");
    left.netns.ip(&format!(
        "link add {} {queues} type veth peer name {} {queues} netns {}",
        left.name,
        right.name,
        right.netns.name(),
    ))?;
    left.up()?;
    right.up()
}

/// Makes a bridge that forwards at once: no spanning tree, no snooping.
///
/// # Errors
/// That of `ip`.
pub fn bridge(bridge: Interface<'_>) -> Result<()> {
    bridge.netns.ip(&format!(
        "link add {} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
        bridge.name
    ))?;
    bridge.up()
}

impl Interface<'_> {
    /// Sets it up.
    ///
    /// # Errors
    /// That of `ip`.
    pub fn up(self) -> Result<()> {
        self.set("up")
    }

    /// Takes it down. A veth's peer loses its carrier.
    ///
    /// # Errors
    /// That of `ip`.
    pub fn down(self) -> Result<()> {
        self.set("down")
    }

    /// Gives it an address with its prefix length, such as `10.1.0.1/24`. IPv6 addresses are usable at once.
    ///
    /// # Errors
    /// That of `ip`.
    pub fn add_address(self, address: &str) -> Result<()> {
        let detection = if address.contains(':') { " nodad" } else { "" };
        self.netns.ip(&format!(
            "address add {address} dev {}{detection}",
            self.name
        ))?;
        Ok(())
    }

    /// Makes it a port of a bridge in its namespace.
    ///
    /// # Errors
    /// That of `ip`.
    pub fn join(self, bridge: &str) -> Result<()> {
        self.set(&format!("master {bridge}"))
    }

    /// Its MAC address.
    ///
    /// # Errors
    /// Where there is no such interface.
    pub fn mac(self) -> Result<Mac> {
        let link = self.shown("link show")?;
        let mac = link["address"].as_str().unwrap_or_default();
        mac.parse().map_err(anyhow::Error::msg)
    }

    /// Changes its MAC address; the neighbours are not told.
    ///
    /// # Errors
    /// That of `ip`.
    pub fn set_mac(self, mac: Mac) -> Result<()> {
        self.set(&format!("address {mac}"))
    }

    /// Switches an offload on or off, under `ethtool -K`'s name, and makes sure that it is so.
    ///
    /// # Errors
    /// Where the interface does not have it or refuses.
    pub fn offload(self, feature: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        self.netns
            .exec(&format!("ethtool -K {} {feature} {state}", self.name))?;
        Ok(())
    }

    /// The XDP program on it as `ip` shows it (`mode`, `prog.id`), or `None`.
    ///
    /// # Errors
    /// Where there is no such interface.
    pub fn xdp(self) -> Result<Option<serde_json::Value>> {
        let link = self.shown("-details link show")?;
        Ok(link
            .get("xdp")
            .filter(|xdp| xdp["prog"].is_object())
            .cloned())
    }

    /// Its addresses of both families, without prefix lengths.
    ///
    /// # Errors
    /// Where there is no such interface.
    pub fn addresses(self) -> Result<Vec<String>> {
        let shown = self.shown("address show")?;
        let all = shown["addr_info"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .filter_map(|one| one["local"].as_str())
            .map(str::to_owned)
            .collect())
    }

    fn set(self, what: &str) -> Result<()> {
        self.netns.ip(&format!("link set {} {what}", self.name))?;
        Ok(())
    }

    fn shown(self, query: &str) -> Result<serde_json::Value> {
        let json = self.netns.ip(&format!("-json {query} dev {}", self.name))?;
        let list: serde_json::Value = serde_json::from_str(&json).with_context(|| json.clone())?;
        // `ip -json` pads its lists with empty objects for interfaces that the filter left out.
        let links = list.as_array().cloned().unwrap_or_default();
        links
            .into_iter()
            .find(|link| link["ifname"] == self.name)
            .with_context(|| format!("no {} in {}", self.name, self.netns.name()))
    }
}
