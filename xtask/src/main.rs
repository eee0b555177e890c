//! `cargo xtask`: the commands of this repository, one file each.
//!
//! Every command does what it needs first, so that any of them may be the first one typed on a fresh machine.

mod bench;
mod build;
mod ci;
mod demo;
mod disasm;
mod kernels;
mod launch;
mod leaks;
mod mutants;
mod root;
mod setup;
mod tally;
mod test;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Sets up, builds, shows and tests the load balancer. Each command does what it needs first.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what the other commands need: compiler, linker, servers and clients; quick where all is there
    Setup,
    Build(build::Arguments),
    Demo(demo::Arguments),
    Test(test::Arguments),
    /// Adds up the stack of every call chain, and has the kernel verify every eBPF program, within the budget of
    /// instructions kept in the tree
    Verify,
    Kernels(kernels::Arguments),
    Bench(bench::Arguments),
    Disasm(disasm::Arguments),
    Mutants(mutants::Arguments),
    /// Runs what a change must pass: format, clippy, documentation, the verifier's budget, every test, the oldest kernel, the bench
    Ci,
}

impl Command {
    fn run(&self) -> Result<()> {
        match self {
            Self::Setup => setup::ensure(),
            Self::Build(arguments) => arguments.run(),
            Self::Demo(arguments) => arguments.run(),
            Self::Test(arguments) => arguments.run(),
            Self::Verify => verify::verify(),
            Self::Kernels(arguments) => arguments.run(),
            Self::Bench(arguments) => arguments.run(),
            Self::Disasm(arguments) => arguments.run(),
            Self::Mutants(arguments) => arguments.run(),
            Self::Ci => ci::ci(),
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
