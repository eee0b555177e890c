//! `cargo xtask build`: the agent with the eBPF object inside, and the programs of the harness.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup;

/// Builds the agent `lb`, the eBPF object inside it, and the programs that show and test it
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimise, for a machine that carries traffic
    #[arg(long)]
    release: bool,
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<()> {
        setup::ensure()?;
        let profile = if self.release {
            Profile::Release
        } else {
            Profile::Dev
        };
        workspace(profile)?;
        eprintln!("build: {}", program("lb", profile)?.display());
        Ok(())
    }
}

/// How the host's programs are compiled. The eBPF object is optimised in both.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds every program for the host. Always the whole workspace: another choice of packages would be another choice of their
/// dependencies' features, and compile those again.
pub(crate) fn workspace(profile: Profile) -> Result<()> {
    let mut build = cargo();
    build.arg("build");
    if let Profile::Release = profile {
        build.arg("--release");
    }
    run(&mut build)
}

/// Builds the agent, optimised and without libraries that it would have to find, and says where it is.
pub(crate) fn static_agent() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let mut build = cargo();
    build.args(["build", "--locked", "--release", "--target", TARGET]);
    build.args(["--package", "lb-userspace", "--bin", "lb"]);
    // With a target named, these flags concern no build script and no macro.
    run(build.env("RUSTFLAGS", "-Ctarget-feature=+crt-static"))?;
    Ok(target()?.join(TARGET).join("release/lb"))
}

/// Where [`workspace`] puts a program: beside this one, which cargo put into the same target directory.
pub(crate) fn program(name: &str, profile: Profile) -> Result<PathBuf> {
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    Ok(target()?.join(directory).join(name))
}

/// The target directory.
fn target() -> Result<PathBuf> {
    let this = env::current_exe().context("can't tell where this program is")?;
    let target = this.ancestors().nth(2);
    let target = target.context("this program is not in a target directory")?;
    Ok(target.to_owned())
}

/// The cargo that runs this program, at work in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(xtask::root());
    cargo
}

/// Runs a command whose output is the user's to read, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't run {command:?}"))?;
    if !status.success() {
        let program = Path::new(command.get_program()).file_name();
        let words = program.into_iter().chain(command.get_args());
        let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
        bail!("`{}` failed", words.join(" "));
    }
    Ok(())
}
