//! What the kernel program and the agent share: the bytes of the maps and the decisions taken on them.
//!
//! Nothing here does I/O, reads a clock or allocates. A function that depends on time takes it as a parameter,
//! so that the same code runs under the verifier, in the agent and in a unit test.
#![cfg_attr(not(test), no_std)]
#![expect(
    clippy::inline_always,
    reason = "the kernel program calls these for each packet, and a call there costs more than what it saves"
)]

pub mod abi;
pub mod checksum;
pub mod filter;
pub mod flow;
pub mod icmp;
pub mod packet;
pub mod parse;
pub mod rewrite;
pub mod schedule;
pub mod table;
pub mod verdict;
