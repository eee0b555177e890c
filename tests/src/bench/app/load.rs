//! A client under load: wrk for requests, iperf3 for bytes.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use super::network::{Network, SERVERS, VIP};
use super::single;
use crate::daemon::Daemon;
use crate::iperf;
use crate::nginx::PORT;
use crate::poll;
use crate::scratch::Scratch;

/// Connections at the same time.
const CONNECTIONS: usize = 32;
/// The least that iperf3 takes for a time.
const SECOND: Duration = Duration::from_secs(1);
/// How long wrk may take to end once it was told to.
const END: Duration = Duration::from_secs(5);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// Each request over a connection of its own.
    NewConnections,
    /// Requests over connections that stay.
    Requests,
    /// One request after the other over one connection.
    Single,
    /// Bytes over one connection.
    Bulk,
}

/// What a client counted, in the words of wrk's script.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Answered {
    /// Requests.
    pub(super) requests: u64,
    /// Microseconds.
    pub(super) duration: f64,
    /// Middle of what a request took, in microseconds, where that was measured.
    #[serde(default)]
    pub(super) p50: f64,
    /// What all but one in a hundred took at most.
    #[serde(default)]
    pub(super) p99: f64,
    /// Connections, requests and answers that failed, and statuses other than 2xx and 3xx.
    pub(super) errors: u64,
}

/// Asks for so long. Without a VIP half of the connections go to each server; a single one goes to the first.
///
/// # Errors
/// Where a request failed.
pub(super) fn requests(
    network: &Network,
    load: Load,
    vip: bool,
    span: Duration,
) -> Result<Answered> {
    let server = if vip { VIP } else { SERVERS[0] };
    if load == Load::Single {
        return single::requests(network, server, span);
    }
    let scratch = Scratch::new("wrk")?;
    scratch.write("wrk.lua", &script(load, vip))?;
    let threads = SERVERS.len();
    let line = format!(
        "taskset --cpu-list {} wrk --threads {threads} --connections {CONNECTIONS} --duration 60 --timeout 2 \
         --script {} http://{server}:{PORT}/",
        network.cpus().0,
        scratch.file("wrk.lua").display(),
    );
    let wrk = Daemon::start(network.client.words(&line), &scratch.file("wrk.log"))?;
    // Set up just before the first request; one that came earlier would be lost or be the end.
    wrk.wait_until(END, "being ready for the signal", || {
        catches_interrupts(wrk.pid())
    })?;
    poll::throughout(span, "wrk asking", || match wrk.ended() {
        Ok(None) => Ok(()),
        ended => Err(format!("{ended:?}: {}", wrk.log().unwrap_or_default())),
    })?;
    // It says then what it has counted so far.
    wrk.signal(Signal::INT)?;
    ensure!(wrk.wait(END)?.success(), "wrk: {}", wrk.log()?);
    let log = wrk.log()?;
    let json = log.lines().find_map(|line| line.strip_prefix("counted "));
    let answered: Answered =
        serde_json::from_str(json.context(log.clone())?).with_context(|| log.clone())?;
    ensure!(
        answered.errors == 0 && answered.requests > 100,
        "{answered:?}"
    );
    Ok(answered)
}

/// Whether a process has a handler for SIGINT.
fn catches_interrupts(process: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap_or_default().trim(), 16)?;
    ensure!(
        caught & 1 << (Signal::INT.as_raw() - 1) != 0,
        "it has no handler"
    );
    Ok(())
}

fn script(load: Load, vip: bool) -> String {
    let addresses = if vip { [VIP, VIP] } else { SERVERS };
    let close = if load == Load::NewConnections {
        "wrk.headers.Connection = 'close'"
    } else {
        ""
    };
    let [first, second] = addresses.map(|address| format!("\"{address}\""));
    format!(
        "local addresses, threads = {{ {first}, {second} }}, 0
{close}
function setup(thread)
  threads = threads + 1
  thread.addr = wrk.lookup(addresses[threads], \"{PORT}\")[1]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('counted {{\"requests\":%d,\"duration\":%d,\"errors\":%d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
"
    )
}

/// Lets iperf3 send for a second, or less where runs are short, and gives the bits per second that arrived.
///
/// # Errors
/// Where it fails.
pub(super) fn bulk(network: &Network, vip: bool, span: Duration) -> Result<f64> {
    let server: Ipv4Addr = if vip { VIP } else { SERVERS[0] };
    let (client, servers) = network.cpus();
    let length = if span < SECOND {
        "--bytes 100M"
    } else {
        "--time 1"
    };
    let options = format!("{length} --affinity {client},{servers}");
    let received = iperf::run(&network.client, server, &options)?;
    ensure!(received.bits_per_second > 0.0, "{received:?}");
    Ok(received.bits_per_second)
}
