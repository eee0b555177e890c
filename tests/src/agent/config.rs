//! The agent's configuration as a value that a test changes, and its text.

use std::fmt::{self, Display};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::topology::{Host, Topology, VIP};

/// Where the metrics are, in the balancer's namespace.
pub const METRICS: &str = "127.0.0.1:9850";

/// A configuration. The pin root and the socket are the [`super::Agent`]'s to add.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the instance.
    pub instance: Option<String>,
    /// Whether the agent adds the VIPs itself.
    pub manage_addresses: bool,
    /// Where the metrics listen.
    pub metrics: Option<String>,
    /// What the program logs.
    pub data_plane_log: Option<String>,
    /// Entries of the flow table.
    pub flow_entries: Option<u32>,
    /// Names and modes of the interfaces.
    pub interfaces: Vec<(String, String)>,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Services.
    pub services: Vec<Service>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Name.
    pub name: String,
    /// Health check.
    pub check: Option<Check>,
    /// Backends.
    pub backends: Vec<Backend>,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Name.
    pub name: String,
    /// Address and port.
    pub address: SocketAddr,
    /// Weight, 0 or 1.
    pub weight: u16,
}

/// A health check.
#[derive(Clone, Debug)]
pub struct Check {
    /// `tcp` or `http`.
    pub kind: &'static str,
    /// From start to start.
    pub interval: Duration,
    /// For the whole check.
    pub timeout: Duration,
    /// Passes that bring up.
    pub rise: u32,
    /// Failures that take down.
    pub fall: u32,
    /// Further keys as TOML lines, such as `path = "/healthz"`.
    pub more: String,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name.
    pub name: String,
    /// VIP and port.
    pub address: SocketAddrV4,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Name of its pool.
    pub pool: String,
}

impl Config {
    /// The interfaces of a topology in native mode, metrics, and nothing to balance.
    #[must_use]
    pub fn new(topology: &Topology) -> Self {
        let native = |name: &&str| ((*name).to_owned(), "native".to_owned());
        Self {
            instance: None,
            manage_addresses: false,
            metrics: Some(METRICS.to_owned()),
            data_plane_log: None,
            flow_entries: None,
            interfaces: topology.balancer_interfaces().iter().map(native).collect(),
            pools: Vec::new(),
            services: Vec::new(),
        }
    }

    /// The usual one: service `www` at the VIP's port 80 with a pool `web` of all backends of a topology at port 80,
    /// named `web0`, `web1` and so on, checked as given.
    #[must_use]
    pub fn web(topology: &Topology, check: Option<Check>) -> Self {
        let mut pool = Pool::new("web", &topology.backends, 80);
        pool.check = check;
        Self::new(topology)
            .pool(pool)
            .service(Service::tcp("www", 80, "web"))
    }

    /// With this pool too.
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pools.push(pool);
        self
    }

    /// With this service too.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }
}

impl Pool {
    /// An unchecked pool of these hosts at a port; its backends are named by the pool and a number.
    #[must_use]
    pub fn new(name: &str, hosts: &[Host], port: u16) -> Self {
        let backend = |(number, host): (usize, &Host)| Backend {
            name: format!("{name}{number}"),
            address: (host.address, port).into(),
            weight: 1,
        };
        let backends = hosts.iter().enumerate().map(backend).collect();
        Self {
            name: name.to_owned(),
            check: None,
            backends,
        }
    }

    /// With this check.
    #[must_use]
    pub fn check(self, check: Check) -> Self {
        Self {
            check: Some(check),
            ..self
        }
    }
}

impl Check {
    /// A TCP check: every 100 ms, 100 ms of patience, up after 2 and down after 3.
    #[must_use]
    pub fn tcp() -> Self {
        let tenth = Duration::from_millis(100);
        Self {
            kind: "tcp",
            interval: tenth,
            timeout: tenth,
            rise: 2,
            fall: 3,
            more: String::new(),
        }
    }

    /// The same as an HTTP check of `/`.
    #[must_use]
    pub fn http() -> Self {
        Self {
            kind: "http",
            ..Self::tcp()
        }
    }

    /// The same once a second, with a second of patience: where others keep the CPUs busy, a server that lives still passes.
    #[must_use]
    pub fn patient(self) -> Self {
        let second = Duration::from_secs(1);
        Self {
            interval: second,
            timeout: second,
            ..self
        }
    }

    /// How late a death may be seen: `fall` checks that fail and the patience of the last, by the configuration alone.
    #[must_use]
    pub fn detection(&self) -> Duration {
        self.interval * self.fall + self.timeout
    }
}

impl Service {
    /// A TCP service at a port of the VIP.
    #[must_use]
    pub fn tcp(name: &str, port: u16, pool: &str) -> Self {
        let address = SocketAddrV4::new(VIP, port);
        Self {
            name: name.to_owned(),
            address,
            protocol: "tcp",
            pool: pool.to_owned(),
        }
    }

    /// A UDP service at a port of the VIP.
    #[must_use]
    pub fn udp(name: &str, port: u16, pool: &str) -> Self {
        Self {
            protocol: "udp",
            ..Self::tcp(name, port, pool)
        }
    }
}

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(listen) = &self.metrics {
            writeln!(f, "[metrics]\nlisten = \"{listen}\"")?;
        }
        writeln!(f, "[data_plane]")?;
        if let Some(level) = &self.data_plane_log {
            writeln!(f, "log = \"{level}\"")?;
        }
        if let Some(entries) = self.flow_entries {
            writeln!(f, "flow_entries = {entries}")?;
        }
        for (name, mode) in &self.interfaces {
            writeln!(f, "[[interface]]\nname = \"{name}\"\nmode = \"{mode}\"")?;
        }
        for pool in &self.pools {
            writeln!(f, "[[pool]]\nname = \"{}\"", pool.name)?;
            if let Some(check) = &pool.check {
                write!(f, "{check}")?;
            }
            for Backend {
                name,
                address,
                weight,
            } in &pool.backends
            {
                writeln!(
                    f,
                    "[[pool.backend]]\naddress = \"{address}\"\nname = \"{name}\"\nweight = {weight}"
                )?;
            }
        }
        for Service {
            name,
            address,
            protocol,
            pool,
        } in &self.services
        {
            writeln!(f, "[[service]]\nname = \"{name}\"\naddress = \"{address}\"")?;
            writeln!(f, "protocol = \"{protocol}\"\npool = \"{pool}\"")?;
        }
        Ok(())
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            interval,
            timeout,
            rise,
            fall,
            more,
        } = self;
        writeln!(f, "[pool.check]\ntype = \"{kind}\"")?;
        writeln!(
            f,
            "interval = \"{}ms\"\ntimeout = \"{}ms\"",
            interval.as_millis(),
            timeout.as_millis()
        )?;
        writeln!(f, "rise = {rise}\nfall = {fall}\n{more}")
    }
}

impl Config {
    /// The whole file, with the keys that stand before the first table and the agent's own.
    #[must_use]
    pub(crate) fn text(&self, pin_root: &str, socket: &str) -> String {
        let instance = self
            .instance
            .as_ref()
            .map(|name| format!("instance = \"{name}\"\n"));
        let instance = instance.unwrap_or_default();
        let manage = self.manage_addresses;
        format!(
            "{instance}manage_addresses = {manage}\n[agent]\npin_root = \"{pin_root}\"\nsocket = \"{socket}\"\n{self}"
        )
    }
}
