//! The harness of the suites: what it takes to run the real object and the real agent in networks made for a test.
//!
//! From the ground up: [`netns`] and [`link`] make the pieces of a network, [`topology`] the two networks that every
//! suite runs in, and says what veth needs for XDP. [`agent`] is the product as a child process; [`nginx`], [`dns`],
//! [`iperf`], [`prometheus`], [`misbehave`] and [`echo`] are what it works with; [`http`], [`icmp`] and [`capture`] look
//! at the result. [`web`] puts the usual set together. [`frames`] are packets as values, for the object alone.
//!
//! Everything tears itself down ([`teardown`]): at the end of its scope, on a panic, on Ctrl-C; what a `kill -9` of a
//! run leaves is removed by the next one. Tests wait by [`poll`] and never sleep, and those that measure run
//! [`Topology::alone`](topology::Topology::alone). Errors say what was seen; the runner prints them with the agent's log.
//!
//! The suites need root. They run by `cargo xtask test`, one alone by `cargo xtask test --suite rotation`.

pub mod agent;
pub mod bench;
pub mod budget;
pub mod capture;
pub mod command;
pub mod daemon;
pub mod disasm;
pub mod dns;
pub mod echo;
pub mod frames;
pub mod http;
pub mod icmp;
pub mod iperf;
pub mod kernel;
pub mod kernels;
pub mod lateness;
pub mod link;
pub mod misbehave;
mod names;
pub mod netns;
pub mod nginx;
pub mod pass;
pub mod poll;
pub mod program;
pub mod prometheus;
pub mod race;
pub mod scratch;
pub mod screen;
pub mod stack;
mod sweep;
pub mod teardown;
pub mod topology;
pub mod turn;
pub mod web;
