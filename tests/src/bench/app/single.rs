//! A single client: one request after the other over one connection, each timed.
//!
//! Not by wrk, which adds made-up latencies for those that a long one kept from being asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::Answered;
use super::network::Network;
use crate::bench::cpu;
use crate::nginx::PORT;

/// Asks first, before anything is timed: the flow is known then, and so is its neighbour.
const WARM_UP: usize = 100;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks a server for so long.
///
/// # Errors
/// Where it does not answer as it should.
pub(super) fn requests(network: &Network, server: Ipv4Addr, span: Duration) -> Result<Answered> {
    network.client.run(|| {
        cpu::pin(network.cpus().0)?;
        let mut stream = TcpStream::connect((server, PORT))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..WARM_UP {
            ask(&mut stream)?;
        }
        let mut took = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < span {
            let asked = Instant::now();
            ask(&mut stream)?;
            took.push(asked.elapsed());
        }
        let duration = begun.elapsed();
        took.sort_unstable();
        let of = |hundredths: usize| {
            let latency = took.get(took.len() * hundredths / 100).copied();
            latency.unwrap_or_default().as_secs_f64() * 1e6
        };
        Ok(Answered {
            requests: u64::try_from(took.len() + WARM_UP)?,
            duration: duration.as_secs_f64() * 1e6,
            p50: of(50),
            p99: of(99),
            errors: 0,
        })
    })?
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: www\r\n\r\n")?;
    let mut answer = [0; 1024];
    let mut length = 0;
    // The body is a line, as the servers of the harness write it; lines of the head end otherwise.
    while !answer[..length].ends_with(b"\n") || answer[..length].ends_with(b"\r\n") {
        let read = stream.read(&mut answer[length..])?;
        ensure!(read > 0, "the server ended the connection");
        length += read;
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer[..length])
    );
    Ok(())
}
