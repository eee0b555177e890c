//! The bench: what a packet costs, and what the balancer carries beside what a user would pick instead.
//!
//! Every figure stands beside that of a program or a peer that did the same work in the same run, because the figures
//! of two machines, or of two hours on a shared one, can't be compared. [`micro`] times the program on packets made in
//! the kernel; [`scale`] has few and many services, backends and flows. Results are [`report::Report`]s: a table, JSON,
//! plots, and a comparison with an earlier one.

pub mod app;
pub mod compare;
mod cpu;
pub mod figures;
pub mod gate;
pub mod micro;
mod object;
mod packets;
#[expect(
    clippy::inline_always,
    reason = "compiled for the kernel too, where a call would be measured along with what is called"
)]
#[path = "../../lb-ebpf/src/harness/plan.rs"]
mod plan;
pub mod plot;
mod replay;
pub mod report;
mod rows;
pub mod scale;
pub mod table;
pub mod veth;
mod world;
