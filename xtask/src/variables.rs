//! Environment variables by which `cargo xtask` tells the harness what to work with.

/// The process that answers for what a test makes, by its id: names end in it, so that what is left can be blamed on its run alone.
pub const RUN: &str = "LB_TEST_RUN";

/// The agent, a path. The harness builds one where this is not set.
pub const AGENT: &str = "LB_BINARY";

/// The eBPF object that the suite `packets` loads, a path; without it the one that the agent embeds.
pub const OBJECT: &str = "LB_OBJECT";
