//! What the operator asked for, checked and complete: every default filled in, every name resolved.
//!
//! `config` makes it from a file; the core and the health checks take it. It knows nothing of files, maps or ids.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use lb_common::abi::{Mode, Protocol, Scheduler};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Names the pin directory, the socket and the metrics of this balancer: `[a-z0-9-]{1,32}`.
    pub instance: String,
    /// The agent adds the VIPs to the first interface and announces them.
    pub manage_addresses: bool,
    /// A bpffs; pins go to `<pin_root>/lb/<instance>/`.
    pub pin_root: PathBuf,
    /// Path of the Unix socket of the API.
    pub socket: PathBuf,
    /// What `ready` means beyond a program that runs on every interface.
    pub ready_when: ReadyWhen,
    /// Where `/metrics`, `/healthz` and `/readyz` listen.
    pub metrics: Option<SocketAddr>,
    /// What the program needs when it is loaded.
    pub data_plane: DataPlane,
    /// In the order of the file, 1 to 16; names are unique.
    pub interfaces: Vec<Interface>,
    /// In the order of the file; names are unique.
    pub pools: Vec<Pool>,
    /// In the order of the file; names are unique, and so are address and protocol together.
    pub services: Vec<Service>,
}

/// What the agent asks of the services before it calls itself ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadyWhen {
    /// Nothing.
    Attached,
    /// One has a backend that takes new flows, or there is none.
    #[default]
    AnyService,
    /// Each has one.
    AllServices,
}

impl ReadyWhen {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::AnyService => "any-service",
            Self::AllServices => "all-services",
        }
    }
}

/// Load-time settings of the program and the size of its flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataPlane {
    /// What the program itself logs.
    pub log: DataPlaneLog,
    /// Entries of the flow table, 1,024 to 16,777,216, made a power of two; a flow in mode `nat` takes two.
    pub flow_entries: u32,
}

/// Level of the program's own log; a load-time constant, so that `Off` leaves no instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPlaneLog {
    /// Nothing.
    #[default]
    Off,
    /// Failures of the program itself.
    Error,
    /// And drops.
    Info,
    /// And flows made.
    Debug,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// How to attach.
    pub mode: AttachMode,
}

/// How the program attaches to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// Native, and where the driver can't, generic with a warning.
    Auto,
    /// Native or not at all.
    Native,
    /// The kernel's generic hook.
    Generic,
}

/// A named set of backends with one health policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique.
    pub name: String,
    /// `None`: its backends are always up.
    pub check: Option<Check>,
    /// In the order of the file, at least one; addresses are unique within the pool.
    pub backends: Vec<Backend>,
}

/// One server process: an address and a port. The same one may stand in several pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// For people; the address where the file gives none.
    pub name: String,
    /// Where packets go.
    pub address: SocketAddr,
    /// 0: no new flows; 1: takes part.
    pub weight: u16,
}

/// How a pool's backends are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What a check does.
    pub kind: CheckKind,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// For a whole check, from connecting to the answer.
    pub timeout: Duration,
    /// Consecutive passes that bring a backend up, at least 1.
    pub rise: u32,
    /// Consecutive failures that take a backend down, at least 1.
    pub fall: u32,
    /// Checked instead of the backend's own port.
    pub port: Option<u16>,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Connects, and closes.
    Tcp,
    /// Sends `GET` by HTTP/1.1 and looks at the status.
    Http {
        /// Path and query, starting with `/`.
        path: String,
        /// `Host` header; the checked address where `None`.
        host: Option<String>,
        /// Inclusive ranges of statuses that pass.
        expect: Vec<(u16, u16)>,
    },
}

/// A virtual server: what clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique.
    pub name: String,
    /// VIP and port.
    pub address: SocketAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Name of a pool of the model.
    pub pool: String,
    /// How packets reach the backend.
    pub mode: Mode,
    /// How a new flow finds its backend.
    pub scheduler: Scheduler,
}

impl Model {
    /// The pool of that name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Whether a single interface carries clients and servers.
    #[must_use]
    pub fn is_one_arm(&self) -> bool {
        self.interfaces.len() == 1
    }
}
