//! The steps of a scene: the agent's life, and the traffic through it.

use std::cell::RefCell;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};

use super::guest::Guest;
use super::machine::Machine;
use super::network::Network;
use super::scene::Scene;
use crate::agent::Config;
use crate::agent::config::{Check, Pool, Service};
use crate::http::load::Load;
use crate::http::{self, Client, Exchange};
use crate::iperf;
use crate::nginx::Nginx;
use crate::poll;
use crate::topology::VIP;

/// How long a request may take: a guest is ten to fifty times slower than the machine that it runs on.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a request may take that is to be refused.
const REFUSAL: Duration = Duration::from_secs(5);
/// Name and bytes of the file.
const FILE: &str = "eight-megabytes";
const FILE_SIZE: usize = 8 << 20;
/// Bits a second that bulk traffic reaches at least. Where the frames of a NIC are merged into larger ones than can be
/// sent on, it is a tenth of that.
const BULK: f64 = 3e6;

/// The servers: a web site on each, and iperf3 on the first.
pub(super) struct Site {
    _servers: Vec<Nginx>,
    _iperf: iperf::Server,
    file: String,
}

impl Site {
    pub(super) fn start(network: &Network) -> Result<Self> {
        let servers = Nginx::on_each(&network.servers)?;
        let file = digits(FILE_SIZE);
        for server in &servers {
            server.offer(FILE, &file)?;
        }
        Ok(Self {
            _servers: servers,
            _iperf: iperf::Server::start(&network.servers[0])?,
            file,
        })
    }
}

/// The agent's configuration for a scene: the web site, and iperf3 on the server that has it.
pub(super) fn config(network: &Network, scene: &Scene) -> Config {
    let mut check = Check::http();
    (check.interval, check.timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    let interfaces = scene.interfaces().into_iter();
    Config {
        instance: None,
        manage_addresses: false,
        metrics: None,
        data_plane_log: None,
        // `lb status` counts them, and a guest is slow.
        flow_entries: Some(65_536),
        interfaces: interfaces.map(|name| (name, "native".to_owned())).collect(),
        pools: vec![
            Pool::new("web", &network.servers, 80).check(check),
            Pool::new("iperf", &network.servers[..1], iperf::PORT),
        ],
        services: vec![
            Service::tcp("www", 80, "web"),
            Service::tcp("iperf", iperf::PORT, "iperf"),
        ],
    }
}

/// All that a step of a scene works with.
pub(super) struct World<'a> {
    machine: &'a Machine,
    network: &'a Network,
    site: &'a Site,
    scene: &'a Scene,
    guest: Guest<'a>,
    config: Config,
    client: Client,
    notes: RefCell<Vec<String>>,
}

impl<'a> World<'a> {
    pub(super) fn new(
        machine: &'a Machine,
        network: &'a Network,
        site: &'a Site,
        scene: &'a Scene,
    ) -> Self {
        Self {
            machine,
            network,
            site,
            scene,
            guest: Guest::new(machine),
            config: config(network, scene),
            client: Client::new(&network.client.netns, (VIP, 80)).patience(PATIENCE),
            notes: RefCell::default(),
        }
    }

    /// Figures that the steps came by.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// The agent starts and is attached to every interface natively; every server is in rotation.
    pub(super) fn attaches(&self) -> Result<()> {
        self.scene.set(self.machine, self.network)?;
        self.guest.start(&self.config)?;
        self.all_serve()
    }

    fn all_serve(&self) -> Result<()> {
        let status = poll::until(PATIENCE, "all servers to be in rotation", || {
            let status = self.guest.status()?;
            let mut rows = status.services.iter().flat_map(|service| &service.backends);
            let all = rows
                .all(|row| row.in_rotation && row.next_hop.is_some() && row.state != "checking");
            ensure!(all, "{:#?}", status.services);
            anyhow::Ok(status)
        })?;
        for interface in &status.interfaces {
            ensure!(interface.mode == "native", "{interface:?}");
        }
        Ok(())
    }

    /// Requests over new connections go to the servers in strict turns.
    pub(super) fn rotation(&self, requests: usize) -> Result<()> {
        let servers = self.sequence(requests)?;
        let period = self.network.servers.len();
        for (number, server) in servers.iter().enumerate() {
            let first = &servers[number % period];
            ensure!(
                server == first,
                "request {number} broke the turn: {servers:?}"
            );
        }
        let mut first = servers[..period].to_vec();
        first.sort();
        first.dedup();
        ensure!(first.len() == period, "not all servers: {servers:?}");
        Ok(())
    }

    /// Who answered so many requests.
    fn sequence(&self, requests: usize) -> Result<Vec<String>> {
        let exchanges = self.client.sequence(requests)?;
        let servers = exchanges.iter().map(|exchange| {
            let server = exchange.server().map(str::to_owned);
            server.map_err(anyhow::Error::msg)
        });
        servers.collect()
    }

    /// A large file comes through as it is, from each server.
    pub(super) fn file(&self) -> Result<()> {
        for _ in &self.network.servers {
            let answer = self.client.get(&format!("/files/{FILE}"))?;
            ensure!(answer.status == 200, "status {}", answer.status);
            let pairs = answer.body.bytes().zip(self.site.file.bytes());
            let same = pairs.take_while(|(came, sent)| came == sent).count();
            ensure!(
                same == FILE_SIZE && answer.body.len() == FILE_SIZE,
                "{} bytes came, the first {same} as they were sent",
                answer.body.len()
            );
        }
        Ok(())
    }

    /// Bulk traffic in both directions.
    pub(super) fn bulk(&self) -> Result<()> {
        for options in ["--time 3", "--time 3 --reverse"] {
            let received = iperf::run(&self.network.client.netns, VIP, options)?;
            let rate = received.bits_per_second;
            ensure!(rate > BULK, "{options}: {received:?}");
            let line = format!("iperf3 {options}: {:.0} Mbit/s", rate / 1e6);
            self.notes.borrow_mut().push(line);
        }
        let drops = self.guest.status()?.drops;
        ensure!(drops.values().all(|count| *count == 0), "{drops:?}");
        Ok(())
    }

    /// Traffic goes on while no agent runs; the next one takes over what is there.
    pub(super) fn adoption(&self) -> Result<()> {
        let sessions = self.sessions()?;
        self.guest.kill()?;
        let interfaces = self.scene.interfaces();
        let attached = self.guest.attached()?;
        ensure!(
            attached == interfaces,
            "after kill -9 attached: {attached:?}"
        );
        self.rotation(4)?;
        self.guest.launch()?;
        let agent = self.guest.status()?.agent;
        ensure!(agent.adopted, "{agent:?}");
        self.all_serve()?;
        self.rotation(4)?;
        undisturbed(sessions)
    }

    /// A server that is taken out gets no new connections, and keeps those that it has; so when it comes back.
    pub(super) fn reload(&self) -> Result<()> {
        let sessions = self.sessions()?;
        let mut config = self.config.clone();
        config.pools[0].backends[0].weight = 0;
        let out = config.pools[0].backends[0].name.clone();
        self.guest.reload(&config)?;
        let servers = self.sequence(4)?;
        ensure!(!servers.contains(&out), "{out} is out: {servers:?}");
        self.guest.reload(&self.config)?;
        self.rotation(4)?;
        undisturbed(sessions)
    }

    /// Connections that are kept open, a request over each now and then; returns when each has been answered.
    fn sessions(&self) -> Result<Load> {
        let count = self.network.servers.len();
        let sessions = Load::sessions(&self.client, count, Duration::from_millis(100));
        poll::until(PATIENCE, "every session to be answered", || {
            let exchanges = sessions.since(SystemTime::UNIX_EPOCH);
            let failures = http::failures(&exchanges);
            ensure!(failures.is_empty(), "{failures:#?}");
            let answered = |connection| {
                let mut all = exchanges.iter();
                all.any(|exchange: &Exchange| exchange.connection == connection)
            };
            ensure!((0..count).all(answered), "{} answers", exchanges.len());
            Ok(())
        })?;
        Ok(sessions)
    }

    /// SIGTERM takes the program off and leaves nothing behind.
    pub(super) fn detaches(&self) -> Result<()> {
        let status = self.guest.terminate()?;
        ensure!(status == 0, "exit status {status}\n{}", self.guest.log());
        let attached = self.guest.attached()?;
        ensure!(attached.is_empty(), "still attached: {attached:?}");
        let pins = self.guest.pins()?;
        ensure!(pins.is_empty(), "still pinned: {pins}");
        let answer = self.client.clone().patience(REFUSAL).get("/");
        if let Ok(answer) = answer {
            bail!("a request is answered all the same: {answer:?}");
        }
        Ok(())
    }
}

/// Ends sessions, none of which may have failed or come to another server.
fn undisturbed(sessions: Load) -> Result<()> {
    let exchanges = sessions.stop()?;
    let failures = http::failures(&exchanges);
    ensure!(failures.is_empty(), "sessions: {failures:#?}");
    for exchange in &exchanges {
        let mut others = exchanges.iter();
        let first = others.find(|other| other.connection == exchange.connection);
        let servers = (exchange.server(), first.map_or(Ok(""), Exchange::server));
        ensure!(servers.0 == servers.1, "a session moved: {servers:?}");
    }
    Ok(())
}

/// So many hexadecimal digits that look random and are the same in every run.
fn digits(count: usize) -> String {
    let mut text = String::with_capacity(count);
    let mut state = 1_u64;
    while text.len() < count {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        write!(text, "{state:016x}").unwrap_or_default();
    }
    text.truncate(count);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_as_long_as_it_is_said_to_be_and_does_not_repeat_itself() {
        let text = digits(100_001);
        assert_eq!(text.len(), 100_001);
        assert!(!text[16..].contains(&text[..16]));
        assert_eq!(text, digits(100_001));
    }
}
