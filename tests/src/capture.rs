//! tcpdump on an interface, and its judgement of every checksum it saw.
//!
//! Only what comes in is looked at: a frame on its way out of a host may rightly carry a checksum that the (virtual)
//! NIC is still to compute, and tcpdump sees it before that.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::command;
use crate::daemon::Daemon;
use crate::link::Interface;
use crate::netns::Netns;
use crate::poll::SOON;
use crate::scratch::Scratch;

/// A capture under way; ended when dropped.
pub struct Capture {
    netns: Netns,
    place: String,
    daemon: Daemon,
    scratch: Scratch,
}

/// What a capture saw.
#[derive(Debug)]
pub struct Seen {
    /// Where.
    pub place: String,
    /// Packets looked at.
    pub packets: usize,
    /// tcpdump's lines about those with a wrong checksum.
    pub wrong: Vec<String>,
}

impl Capture {
    /// Starts to look at IPv4 packets that come in on an interface, at most the first `packets`, whole.
    ///
    /// # Errors
    /// Where tcpdump does not start, with its words.
    pub fn start(interface: Interface<'_>, packets: usize) -> Result<Self> {
        let scratch = Scratch::new("capture")?;
        let place = format!("{} in {}", interface.name, interface.netns.name());
        // As root it would give up its rights and could not write here: -Z root keeps them.
        let mut command = interface.netns.words(&format!(
            "tcpdump -i {} -Q in -n -s 0 -U -Z root -B 16384 -c {packets}",
            interface.name
        ));
        command
            .arg("-w")
            .arg(scratch.file("capture.pcap"))
            .arg("ip");
        let daemon = Daemon::start(command, &scratch.file("tcpdump.log"))?;
        daemon.wait_until(SOON, "listening", || {
            ensure!(daemon.log()?.contains("listening on"), "it does not listen");
            Ok(())
        })?;
        Ok(Self {
            netns: interface.netns.clone(),
            place,
            daemon,
            scratch,
        })
    }

    /// Ends the capture and judges what it saw.
    ///
    /// # Errors
    /// Where tcpdump cannot read its own file.
    pub fn stop(self) -> Result<Seen> {
        if self.daemon.ended()?.is_none() {
            self.daemon.signal(Signal::INT)?;
            self.daemon.wait(SOON)?;
        }
        let mut reader = self.netns.words("tcpdump -n -vv -r");
        let text = command::run(reader.arg(self.scratch.file("capture.pcap")))
            .with_context(|| format!("capture on {}", self.place))?;
        let lines: Vec<&str> = text.lines().collect();
        let packets = lines
            .iter()
            .filter(|line| !line.starts_with([' ', '\t']))
            .count();
        let wrong = lines
            .iter()
            .filter(|line| is_wrong(line))
            .map(|line| line.trim().to_owned());
        Ok(Seen {
            place: self.place,
            packets,
            wrong: wrong.collect(),
        })
    }
}

impl Seen {
    /// Makes sure that there were packets and that every checksum was right.
    ///
    /// # Errors
    /// The first wrong ones.
    pub fn check(&self) -> Result<()> {
        let Self {
            place,
            packets,
            wrong,
        } = self;
        ensure!(*packets > 0, "no packet came in on {place}");
        let shown = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
        ensure!(
            wrong.is_empty(),
            "{} of {packets} packets on {place}:\n{shown}",
            wrong.len()
        );
        Ok(())
    }
}

/// tcpdump's words: `(incorrect -> 0x1234)` for TCP, `[bad udp cksum ..]`, `wrong icmp cksum`, `bad cksum` for IP.
fn is_wrong(line: &str) -> bool {
    [
        "(incorrect",
        "bad udp cksum",
        "wrong icmp cksum",
        "bad cksum",
    ]
    .iter()
    .any(|words| line.contains(words))
}
