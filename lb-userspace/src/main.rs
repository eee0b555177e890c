//! `lb`: the agent and the command line of the load balancer.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
