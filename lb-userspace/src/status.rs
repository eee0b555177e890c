//! What an operator sees: the one report behind `lb status`, `GET /v1/status` and the metrics.
//!
//! It is read from the maps in force and from the health checks, never from what the agent means to be so. Times are
//! RFC 3339 strings in UTC with microseconds; counts grow only; packets and bytes are whole frames as received.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// Name of the instance.
    pub instance: String,
    /// When the report was made.
    pub time: String,
    /// The agent.
    pub agent: AgentReport,
    /// The program in the kernel; `None` while it is not loaded.
    pub program: Option<ProgramReport>,
    /// In the order of the configuration.
    pub interfaces: Vec<InterfaceReport>,
    /// In the order of the configuration, then removed ones that still hold flows.
    pub services: Vec<ServiceReport>,
    /// Backends that several services use, each once, by address.
    #[serde(default)]
    pub shared_backends: Vec<SharedBackendReport>,
    /// The flow table.
    pub flow_table: FlowTableReport,
    /// Packets by verdict: `pass`, `transmit`, ...; every verdict has its row, also at 0.
    pub verdicts: BTreeMap<String, u64>,
    /// Packets dropped, by reason; every reason has its row, also at 0.
    pub drops: BTreeMap<String, u64>,
}

/// The agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentReport {
    /// Version of the package.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started: String,
    /// The first reconcile and the first checks are done, the program runs on every interface, its pins are there, and
    /// services can serve as far as `ready_when` asks for it.
    pub ready: bool,
    /// Why it is not ready, a reason each.
    #[serde(default)]
    pub not_ready: Vec<String>,
    /// What of the agent does not work although traffic flows: `metrics`, `socket`.
    #[serde(default)]
    pub problems: BTreeMap<String, String>,
    /// Whether this start adopted the pins of an earlier one.
    pub adopted: bool,
    /// Path of the configuration.
    pub config: String,
    /// When it was last read successfully.
    pub config_loaded: String,
    /// Why the last reload was refused; `None` where it was applied.
    pub config_error: Option<String>,
    /// Reconciles since the start.
    pub reconciles: u64,
    /// Changes to maps since the start.
    pub changes: u64,
    /// Reconciles that failed and are tried again, since the start.
    pub reconcile_failures: u64,
}

impl AgentReport {
    /// Notes what does not work of a part of the agent, or that all of it works.
    pub fn note(&mut self, part: &str, problem: Option<String>) {
        match problem {
            Some(problem) => self.problems.insert(part.to_owned(), problem),
            None => self.problems.remove(part),
        };
    }
}

/// The program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Kernel id.
    pub id: u32,
    /// Kernel tag, hexadecimal.
    pub tag: String,
    /// When it was loaded.
    pub loaded: String,
    /// Instructions the verifier walked.
    pub verified_instructions: u32,
    /// Level of the program's log: `off`, `error`, `info`, `debug`.
    pub log: String,
}

/// An interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Kernel name.
    pub name: String,
    /// Kernel index; `None` while it is gone.
    pub ifindex: Option<u32>,
    /// `native` or `generic` as attached; `detached` otherwise.
    pub mode: String,
    /// Why it is detached, in generic mode, or without all of its VIPs; or that it is down.
    pub reason: Option<String>,
    /// What costs packets or speed there, with the help.
    #[serde(default)]
    pub notices: Vec<String>,
    /// What its driver counts of XDP and of lost packets, by the names of `ethtool -S`.
    #[serde(default)]
    pub driver_counters: BTreeMap<String, u64>,
    /// Those of lost packets that moved since the agent attached or adopted the program, by how much.
    #[serde(default)]
    pub driver_losses: BTreeMap<String, u64>,
}

/// A service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Name; of a removed service its address and protocol, `VIP:port/protocol`.
    pub name: String,
    /// `VIP:port`.
    pub address: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `nat`.
    pub mode: String,
    /// `round-robin`.
    pub scheduler: String,
    /// Name of the pool; empty for a removed service.
    pub pool: String,
    /// Removed from the configuration, kept while flows use it.
    pub removed: bool,
    /// Why clients' packets do not come to it here: its VIP is not taken.
    #[serde(default)]
    pub problem: Option<String>,
    /// Flows that are neither closed nor idle past their time.
    pub active_flows: u64,
    /// Traffic of the service.
    pub traffic: Traffic,
    /// In the order of the configuration, then removed ones that still hold flows of this service.
    pub backends: Vec<BackendReport>,
}

/// A backend of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackendReport {
    /// Name.
    pub name: String,
    /// `address:port`.
    pub address: String,
    /// Weight of the configuration; 0 for a removed one.
    pub weight: u16,
    /// `up`, `down`, `checking` (no result yet), `unchecked` (no check configured), `removed`.
    pub state: String,
    /// Why it is in that state, in words.
    pub reason: String,
    /// Since when.
    pub since: String,
    /// Whether the slots in force send new flows there.
    pub in_rotation: bool,
    /// MAC address of the next hop; `None` while it is not resolved.
    pub next_hop: Option<String>,
    /// Flows of this service on this backend.
    pub active_flows: u64,
    /// Traffic of the backend since it was added. Packets are counted by backend and not by service, so it is `None`
    /// where several services use the backend: [`StatusReport::shared_backends`] has it then.
    pub traffic: Option<Traffic>,
    /// Its clients get no replies through here although it is up or unchecked; `None` where they do, or where too little
    /// is known to say so. Only backends all of whose services are TCP are judged.
    #[serde(default)]
    pub no_replies: Option<NoRepliesReport>,
    /// Results of its checks; `None` where it is not checked.
    pub checks: Option<ChecksReport>,
}

/// A backend from which no packet comes back through the balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoRepliesReport {
    /// When the first of these flows was made, to within a second.
    pub since: String,
    /// Flows made since the last packet that came back.
    pub new_flows: u64,
    /// What to do, in words.
    pub help: String,
}

/// A backend that several services use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SharedBackendReport {
    /// The name that the first of the services knows it by.
    pub name: String,
    /// `address:port`.
    pub address: String,
    /// Names of the services, in the order of the report.
    pub services: Vec<String>,
    /// Traffic of the backend since it was added, of all services together.
    pub traffic: Traffic,
}

/// Counts of one service or backend, and their change a second over the last interval of at least one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames towards backends.
    pub forward_packets: u64,
    /// Bytes towards backends.
    pub forward_bytes: u64,
    /// Frames towards clients.
    pub reverse_packets: u64,
    /// Bytes towards clients.
    pub reverse_bytes: u64,
    /// Flows made.
    pub new_flows: u64,
    /// New flows a second.
    pub new_flows_per_second: f64,
    /// Frames a second, both directions.
    pub packets_per_second: f64,
    /// Bytes a second, both directions.
    pub bytes_per_second: f64,
}

/// Results of a backend's checks since the agent started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChecksReport {
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Result of the last one, in words.
    pub last: String,
    /// How long it took, in seconds.
    pub last_duration_seconds: f64,
}

/// The flow table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FlowTableReport {
    /// Entries it can hold.
    pub capacity: u64,
    /// Entries it holds, two a flow.
    pub entries: u64,
    /// What happened to it: evictions by kind, overflows, inserts lost to another CPU, packets sent by hash because other CPUs held
    /// the locks; every event has its row.
    pub events: BTreeMap<String, u64>,
}
