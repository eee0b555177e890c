//! ICMP from a namespace: echo requests, and the errors that other packets cause.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::frames::{Frame, Icmp, Ipv4, Transport};
use crate::netns::Netns;

/// A raw ICMP socket: sees every ICMP message that reaches the namespace's addresses.
pub struct IcmpSocket {
    socket: UdpSocket,
}

impl IcmpSocket {
    /// Opens one.
    ///
    /// # Errors
    /// Where the process is not root.
    pub fn open(netns: &Netns) -> Result<Self> {
        let raw =
            netns.run(|| socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)))?;
        // The type only lends its methods for sending and receiving datagrams; the kernel knows what the socket is.
        Ok(Self {
            socket: UdpSocket::from(raw.context("a raw socket")?),
        })
    }

    /// Sends an echo request and waits for the answer from that very address: how long it took.
    ///
    /// # Errors
    /// Where no answer comes within `within`, or a wrong one.
    pub fn ping(&self, target: Ipv4Addr, sequence: u16, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        let request = Frame::echo_request(Ipv4Addr::UNSPECIFIED, target, IDENTIFIER, sequence);
        let request = request.icmp_message().clone();
        self.socket
            .send_to(&request.to_bytes(), SocketAddrV4::new(target, 0))?;
        let answer = self.receive(within, |packet, message| {
            let is_reply = message.kind == Icmp::ECHO_REPLY && message.rest == request.rest;
            packet.source == target && is_reply
        });
        let (_, message) = answer.with_context(|| format!("no echo reply from {target}"))?;
        anyhow::ensure!(
            message.payload == request.payload,
            "echoed other data: {message:?}"
        );
        Ok(start.elapsed())
    }

    /// Waits for a message that `is` the one.
    ///
    /// # Errors
    /// Where it does not come within `within`: what came instead.
    pub fn receive(
        &self,
        within: Duration,
        is: impl Fn(&Ipv4, &Icmp) -> bool,
    ) -> Result<(Ipv4, Icmp)> {
        let deadline = Instant::now() + within;
        let mut others = Vec::new();
        let mut buffer = [0; 2_048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("nothing within {within:?} but {others:?}");
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(length) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let packet = Ipv4::from_bytes(&buffer[..length])?;
            let Transport::Icmp(message) = packet.payload.clone() else {
                continue;
            };
            if is(&packet, &message) {
                return Ok((packet, message));
            }
            others.push(message);
        }
    }
}

/// Identifier of the echo requests; a namespace has one sender.
const IDENTIFIER: u16 = 0x6c62;
