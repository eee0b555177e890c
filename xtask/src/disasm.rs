//! `cargo xtask disasm`: the harness' program `disasm`.

use anyhow::Result;

use crate::build::Profile;
use crate::launch;

/// Shows the machine code that the kernel makes of a program, under the lines of its source, and what it comes to
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Its name in the object; an unknown one is answered with those that there are
    #[arg(default_value = "lb")]
    program: String,
    /// Show the BPF instructions as the verifier left them, not the machine code
    #[arg(long, conflicts_with = "jited")]
    bpf: bool,
    /// Show the machine code, as is done without an option
    #[arg(long)]
    jited: bool,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<()> {
        let mut words = vec![self.program.clone()];
        if self.bpf && !self.jited {
            words.push("--bpf".to_owned());
        }
        launch::replace("disasm", Profile::Dev, &words)
    }
}
