//! DNS over UDP: dnsmasq as the server, dig as the client.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::command;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::poll::SOON;
use crate::scratch::Scratch;
use crate::topology::Host;

/// Its port.
pub const PORT: u16 = 53;
/// The name that every server resolves to a text, its own name.
pub const NAME: &str = "who.test";

/// A running dnsmasq that knows one name; killed when dropped.
pub struct Dns {
    _daemon: Daemon,
    _scratch: Scratch,
}

impl Dns {
    /// Starts it on a host and waits until it answers; [`NAME`] gives `name`.
    ///
    /// # Errors
    /// Where it does not come up, with its log.
    pub fn start(host: &Host, name: &str) -> Result<Self> {
        let scratch = Scratch::new("dns")?;
        let mut command = host.netns.words(
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --log-facility=-",
        );
        command.arg(format!(
            "--pid-file={}",
            scratch.file("dnsmasq.pid").display()
        ));
        command
            .arg(format!("--listen-address={}", host.address))
            .arg("--bind-interfaces");
        command.arg(format!("--txt-record={NAME},{name}"));
        let daemon = Daemon::start(command, &scratch.file("dnsmasq.log"))?;
        daemon.wait_until(SOON, "answering", || {
            dig(&host.netns, host.address, None).map(drop)
        })?;
        Ok(Self {
            _daemon: daemon,
            _scratch: scratch,
        })
    }

    /// One for each host, named `dns0`, `dns1` and so on.
    ///
    /// # Errors
    /// As [`Dns::start`].
    pub fn on_each(hosts: &[Host]) -> Result<Vec<Self>> {
        let numbered = hosts.iter().enumerate();
        numbered
            .map(|(number, host)| Self::start(host, &format!("dns{number}")))
            .collect()
    }
}

/// Asks a server for [`NAME`] and gives its text; one try, from this address and port where they are given.
///
/// # Errors
/// Where there is no answer in time, with dig's words.
pub fn dig(from: &Netns, server: Ipv4Addr, source: Option<(Ipv4Addr, u16)>) -> Result<String> {
    let mut command = from.words(&format!(
        "dig +short +tries=1 +timeout=10 @{server} {NAME} TXT"
    ));
    if let Some((address, port)) = source {
        command.arg("-b").arg(format!("{address}#{port}"));
    }
    Ok(command::run(&mut command)?
        .trim()
        .trim_matches('"')
        .to_owned())
}
