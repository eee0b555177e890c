//! Shows what the kernel made of a program: `cargo xtask disasm`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use lb_tests::command;
use lb_tests::disasm::{Listing, Loaded, Symbols};
use lb_tests::screen::{Colour, Screen};

/// Shows what the kernel made of a program
#[derive(Parser)]
#[command(name = "cargo xtask disasm")]
struct Cli {
    /// Its name in the object
    program: String,
    /// Its BPF instructions, as the verifier left them, in the place of the machine code
    #[arg(long)]
    bpf: bool,
}

fn main() -> ExitCode {
    let screen = Screen::new();
    screen.finish(show(screen, &Cli::parse()))
}

fn show(screen: Screen, cli: &Cli) -> Result<()> {
    let loaded = Loaded::load(&cli.program)?;
    let compiled = loaded.compiled()?;
    let symbols = Symbols::of_the_kernel()?;
    let listing = Listing::new(&compiled, &symbols);
    if cli.bpf {
        let id = compiled.id;
        let text = command::line(&format!("bpftool prog dump xlated id {id} linum"))?;
        for line in text.lines() {
            match line.strip_prefix(';') {
                Some(_) => screen.line(screen.paint(Colour::Blue, line)),
                None => screen.line(line),
            }
        }
    } else {
        listing.print(screen);
    }
    listing.summary().print(screen);
    Ok(())
}
