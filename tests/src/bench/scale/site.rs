//! A network with thousands of backends, and configurations of the real agent for it.
//!
//! One host behind the balancer answers for two whole networks of backends: it routes them to itself. A configuration
//! has as many services as backends, in pools of sixteen; each pool serves sixteen services.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::config::METRICS;
use crate::agent::{Agent, Config};
use crate::netns::Netns;
use crate::topology::{Arms, BALANCER, Topology};

/// Backends of a pool, and services that share one.
const POOL: u16 = 16;
/// Address of the first service.
const VIPS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// Addresses of the backends, and of those that come in their places.
const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 64, 0, 0), Ipv4Addr::new(10, 65, 0, 0)];
const PORT: u16 = 8_080;
/// Where connections are taken and left open.
const SILENT_PORT: u16 = 8_081;

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 16_384;

/// The network; gone when dropped.
pub(super) struct Site {
    pub(super) topology: Topology,
    server: TcpListener,
    /// Its backlog takes connections that nobody accepts.
    _silent: TcpListener,
}

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Services, and backends.
    pub(super) size: u16,
    /// Backends from the first on that have their second address.
    pub(super) moved: u16,
    /// Checked by TCP as often as where the file does not say.
    pub(super) checked: bool,
    /// Entries of the flow table.
    pub(super) entries: u32,
}

impl Site {
    pub(super) fn new() -> Result<Self> {
        let topology = Topology::alone(Arms::One, 1)?;
        let host = &topology.backends[0];
        for net in BACKENDS {
            let via = host.address;
            topology
                .balancer
                .netns
                .ip(&format!("route add {net}/16 via {via}"))?;
            host.netns.ip(&format!("route add local {net}/16 dev lo"))?;
        }
        topology
            .client
            .netns
            .ip(&format!("route add {VIPS}/16 via {BALANCER}"))?;
        let listen = |port| -> Result<TcpListener> {
            let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            let listener = host.netns.run(|| TcpListener::bind(address))??;
            // Thousands of checks may come at once; the library asks for room for 128.
            rustix::net::listen(&listener, BACKLOG)?;
            Ok(listener)
        };
        let (server, silent) = (listen(PORT)?, listen(SILENT_PORT)?);
        let accepting = server.try_clone()?;
        thread::spawn(move || {
            for mut stream in accepting.incoming().map_while(Result::ok) {
                let name = stream.local_addr().map(|address| address.to_string());
                // Where the peer has gone it has no use for the name.
                stream
                    .write_all(name.unwrap_or_default().as_bytes())
                    .unwrap_or_default();
            }
        });
        Ok(Self {
            topology,
            server,
            _silent: silent,
        })
    }

    /// An agent with a configuration, not started.
    pub(super) fn agent(&self, shape: Shape) -> Result<Agent> {
        let mut agent =
            Agent::prepare(&self.topology.balancer.netns, &Config::new(&self.topology))?;
        agent.be_quiet();
        shape.write(&agent)?;
        Ok(agent)
    }

    /// Has connections of a client go through the first service and the last, and checks who answers.
    pub(super) fn check_packets(&self, shape: Shape) -> Result<()> {
        for number in [0, shape.size - 1] {
            let members: Vec<_> = shape.members(number / POOL).collect();
            let mut answered = Vec::new();
            for _ in &members {
                let name = ask(&self.topology.client.netns, service(number))?;
                answered.push(name.parse::<SocketAddrV4>().context(name)?);
            }
            answered.sort_unstable();
            let mut expected: Vec<_> = members.iter().map(|(_, address)| *address).collect();
            expected.sort_unstable();
            ensure!(
                answered == expected,
                "service {number}: {answered:?} answered, not {expected:?}"
            );
        }
        Ok(())
    }

    /// A connection through the only service of [`Shape::silent`], that stays as long as the value.
    pub(super) fn hold(&self) -> Result<TcpStream> {
        let service = SocketAddrV4::new(VIPS, SILENT_PORT);
        let connect = || TcpStream::connect_timeout(&service.into(), PATIENCE);
        Ok(self.topology.client.netns.run(connect)??)
    }
}

/// For a connection.
const PATIENCE: Duration = Duration::from_secs(2);

fn ask(from: &Netns, service: SocketAddrV4) -> Result<String> {
    let stream = from.run(|| TcpStream::connect_timeout(&service.into(), PATIENCE))?;
    let mut stream = stream.with_context(|| service.to_string())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut name = String::new();
    stream.read_to_string(&mut name)?;
    Ok(name)
}

impl Drop for Site {
    fn drop(&mut self) {
        // Wakes the thread that accepts.
        if let Err(error) = rustix::net::shutdown(&self.server, rustix::net::Shutdown::Both) {
            eprintln!("harness: a listener stays: {error}");
        }
    }
}

impl Shape {
    /// Writes the agent's configuration.
    pub(super) fn write(self, agent: &Agent) -> Result<()> {
        let mut text = self.head(agent)?;
        for pool in 0..self.size.div_ceil(POOL) {
            writeln!(text, "[[pool]]\nname = \"pool{pool}\"")?;
            if self.checked {
                writeln!(text, "[pool.check]\ntype = \"tcp\"")?;
            }
            for (number, address) in self.members(pool) {
                writeln!(
                    text,
                    "[[pool.backend]]\nname = \"server{number}\"\naddress = \"{address}\""
                )?;
            }
        }
        for number in 0..self.size {
            let (address, pool) = (service(number), number / POOL);
            writeln!(
                text,
                "[[service]]\nname = \"service{number}\"\nprotocol = \"tcp\"\naddress = \"{address}\"\npool = \"pool{pool}\""
            )?;
        }
        agent.write_text(&text)
    }

    /// Writes a configuration of one service with two backends that accept and say nothing, or with one.
    pub(super) fn write_silent(self, agent: &Agent, backends: u8) -> Result<()> {
        let mut text = self.head(agent)?;
        writeln!(text, "[[pool]]\nname = \"silent\"")?;
        for number in 0..backends {
            let address = Ipv4Addr::from_bits(BACKENDS[0].to_bits() + 2 - u32::from(number));
            writeln!(
                text,
                "[[pool.backend]]\naddress = \"{address}:{SILENT_PORT}\""
            )?;
        }
        writeln!(
            text,
            "[[service]]\nname = \"silent\"\nprotocol = \"tcp\"\naddress = \"{VIPS}:{SILENT_PORT}\"\npool = \"silent\""
        )?;
        agent.write_text(&text)
    }

    fn head(self, agent: &Agent) -> Result<String> {
        let (pin_root, socket) = (agent.scratch().bpffs(), agent.socket());
        let (pin_root, socket) = (pin_root.display(), socket.display());
        let mut text = String::new();
        writeln!(
            text,
            "[agent]\npin_root = \"{pin_root}\"\nsocket = \"{socket}\""
        )?;
        writeln!(text, "[metrics]\nlisten = \"{METRICS}\"")?;
        writeln!(text, "[data_plane]\nflow_entries = {}", self.entries)?;
        writeln!(text, "[[interface]]\nname = \"eth0\"\nmode = \"native\"")?;
        Ok(text)
    }

    /// Number and address of a pool's backends.
    pub(super) fn members(self, pool: u16) -> impl Iterator<Item = (u16, SocketAddrV4)> {
        let first = pool * POOL;
        (first..self.size.min(first + POOL)).map(move |number| {
            let net = BACKENDS[usize::from(number < self.moved)];
            (number, SocketAddrV4::new(host(net, number), PORT))
        })
    }

    /// Addresses of the backends that new flows of a service should be sent to.
    pub(super) fn rotation(self, service: u16) -> impl Iterator<Item = SocketAddrV4> {
        self.members(service / POOL).map(|(_, address)| address)
    }
}

fn service(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(host(VIPS, number), 80)
}

/// An address of a /16; the first is 1.
fn host(net: Ipv4Addr, number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.to_bits() + 1 + u32::from(number))
}
