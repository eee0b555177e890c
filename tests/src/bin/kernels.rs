//! Runs the product on other kernels: `cargo xtask kernels`.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lb_tests::agent;
use lb_tests::kernels::Image;
use lb_tests::kernels::checks::{self, Build, Count};
use lb_tests::screen::Screen;

/// Runs the product on other kernels
#[derive(Parser)]
#[command(name = "cargo xtask kernels")]
struct Cli {
    /// Directories of unpacked kernels
    #[arg(required = true)]
    kernels: Vec<String>,
    /// Whether the program loads and serves, and no more
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let screen = Screen::new();
    screen.finish(kernels(screen, &Cli::parse()))
}

fn kernels(screen: Screen, cli: &Cli) -> Result<()> {
    let this = env::current_exe()?;
    let programs = this.parent().context("no directory")?;
    let mut total = Count::default();
    for directory in cli.kernels.iter().map(Path::new) {
        let image = Image::in_directory(directory)?;
        let build = Build {
            agent: agent::binary()?,
            verify: programs.join("verify"),
            directory: directory.to_owned(),
        };
        let count = checks::run(&image, &build, cli.quick, screen)?;
        total.passed += count.passed;
        total.failed += count.failed;
    }
    let Count { passed, failed } = total;
    screen.line(format_args!("{passed} passed, {failed} failed"));
    ensure!(failed == 0, "{failed} checks failed");
    Ok(())
}
