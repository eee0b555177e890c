//! The agent of the load balancer and its command line.
//!
//! A configuration and what the agent observes (health, neighbours, the data plane's counters) become the contents of
//! BPF maps through one planner and one writer; see ARCHITECTURE.md.

pub mod addresses;
pub mod admin;
pub mod cli;
pub mod config;
pub mod core;
pub mod dataplane;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod neighbours;
pub mod nic;
pub mod observe;
pub mod plan;
pub mod status;

/// The program of the data plane, as the kernel's loader takes it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.o"));
