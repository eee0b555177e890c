//! iperf3: bulk traffic through the balancer, both ways.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::poll::SOON;
use crate::scratch::Scratch;
use crate::topology::Host;

/// Its port, for the TCP connection that controls a run and for the data of either protocol.
pub const PORT: u16 = 5201;

/// A running server; killed when dropped.
pub struct Server {
    _daemon: Daemon,
    _scratch: Scratch,
}

/// What the receiving end of a run counted.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes.
    pub bytes: u64,
    /// Over the run.
    pub bits_per_second: f64,
    /// UDP: datagrams that the other end sent.
    pub datagrams: u64,
    /// UDP: how many of them did not come.
    pub lost: u64,
}

impl Server {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Where it does not come up, with its log.
    pub fn start(host: &Host) -> Result<Self> {
        let scratch = Scratch::new("iperf")?;
        let command = host
            .netns
            .words(&format!("iperf3 --server --port {PORT} --forceflush"));
        let daemon = Daemon::start(command, &scratch.file("iperf3.log"))?;
        daemon.wait_until(SOON, "listening", || {
            ensure!(
                daemon.log()?.contains("Server listening"),
                "it does not listen"
            );
            Ok(())
        })?;
        Ok(Self {
            _daemon: daemon,
            _scratch: scratch,
        })
    }
}

/// Runs a client with these options against `server`, such as `--time 1 --reverse` or `--udp --bitrate 100M`.
///
/// # Errors
/// Where the run fails, with iperf3's words.
pub fn run(from: &Netns, server: Ipv4Addr, options: &str) -> Result<Received> {
    // Where nothing arrives any more, iperf3 waits for ever.
    let line = format!(
        "timeout 60 iperf3 --client {server} --port {PORT} --json --connect-timeout 10000 {options}"
    );
    let output = command::output(&mut from.words(&line))?;
    let said = command::said(&output);
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
    ensure!(report["error"].is_null(), "`{line}`: {}", report["error"]);
    let end = &report["end"];
    let udp = end["streams"][0]["udp"].is_object();
    let received = if udp {
        &end["sum"]
    } else {
        &end["sum_received"]
    };
    let count = |field: &str| received[field].as_u64().unwrap_or(0);
    Ok(Received {
        bytes: count("bytes"),
        bits_per_second: received["bits_per_second"].as_f64().unwrap_or(0.0),
        datagrams: count("packets"),
        lost: count("lost_packets"),
    })
}
