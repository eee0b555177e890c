//! `cargo xtask setup`: installs what building, the demo and the tests need.
//!
//! Looks first, so that a machine which has everything is left alone, quickly and without network. Debian's packages are installed as
//! root, the linker is built as the user into `target/tools`. Where it can't install, it says what to type.

use std::env;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use xtask::programs;
use xtask::toolchain::{self, Compiler, Set};

use crate::build::{cargo, run};
use crate::root;

/// The release of `bpf-linker` that goes with the project's aya.
const LINKER: &str = "0.13.0";

/// The release of `cargo-mutants`, which the command `mutants` alone needs.
const MUTANTS: &str = "27.1.0";

/// Installs packages without letting their daemons start.
const INSTALL: &str = include_str!("install.sh");

/// A Debian package, and what it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Package<'a> {
    name: &'a str,
    why: &'a str,
}

const fn package<'a>(name: &'a str, why: &'a str) -> Package<'a> {
    Package { name, why }
}

/// The compiler that brings `core` for the kernel's virtual machine.
const COMPILER: [Package; 3] = [
    package("rustc-web", "compiles the eBPF programs"),
    package("cargo-web", "drives that compiler"),
    package(
        "libstd-rust-web-dev-bpf",
        "Rust's core library for the kernel's virtual machine",
    ),
];

/// Goes with [`COMPILER`]; a rustup toolchain has a clippy of its own.
const CLIPPY: (&str, Package) = (
    "/usr/bin/cargo-clippy",
    package("rust-web-clippy", "lints the eBPF programs"),
);

/// Programs, and the packages that bring them.
#[rustfmt::skip]
const PROGRAMS: [(&str, Package); 16] = [
    ("ip", package("iproute2", "makes network namespaces and links")),
    ("ethtool", package("ethtool", "sets the offloads of links")),
    ("nginx", package("nginx-light", "web servers behind the balancer")),
    ("curl", package("curl", "their client")),
    ("wrk", package("wrk", "their client under load")),
    ("dnsmasq", package("dnsmasq-base", "DNS servers behind the balancer")),
    ("dig", package("bind9-dnsutils", "their client")),
    ("iperf3", package("iperf3", "bulk traffic through the balancer")),
    ("prometheus", package("prometheus", "reads the agent's metrics")),
    ("tcpdump", package("tcpdump", "looks at frames and their checksums")),
    ("bpftool", package("bpftool", "looks at programs and maps in the kernel")),
    ("ps", package("procps", "looks at processes")),
    ("nft", package("nftables", "the kernel's own balancing, to compare with")),
    ("haproxy", package("haproxy", "balancing in user space, to compare with")),
    ("qemu-system-x86_64", package("qemu-system-x86", "runs other kernels")),
    ("busybox", package("busybox-static", "what a guest has for a system")),
];

/// Sees to it that everything is there, and says what it does about what is not.
pub(crate) fn ensure() -> Result<()> {
    let compiler = toolchain::detect()
        .map(|toolchain| toolchain.compiler)
        .ok()
        .or_else(toolchain::debian);
    let missing = missing(compiler.map(|compiler| compiler.set), |program| {
        programs::find(program).is_some()
    });
    if !missing.is_empty() {
        install(&missing)?;
    }
    let toolchain = match toolchain::detect() {
        Ok(toolchain) => toolchain,
        Err(reason) => {
            build_linker(&toolchain::debian().ok_or(reason)?)?;
            toolchain::detect()?
        }
    };
    run(cargo().args(["fetch", "--quiet", "--locked"]))
        .context("can't fetch the crates of Cargo.lock")?;
    eprintln!("setup: {toolchain}");
    Ok(())
}

/// The packages that are missing where a compiler of the set `compiler` is there and `found` knows which programs are.
fn missing(compiler: Option<Set>, found: impl Fn(&str) -> bool) -> Vec<Package<'static>> {
    let compilers = COMPILER.into_iter().filter(|_| compiler.is_none());
    let clippy = Some(CLIPPY).filter(|_| compiler != Some(Set::Rustup));
    let programs = clippy
        .into_iter()
        .chain(PROGRAMS)
        .filter(|(program, _)| !found(program));
    compilers
        .chain(programs.map(|(_, package)| package))
        .collect()
}

/// Installs Debian packages as root.
fn install(packages: &[Package]) -> Result<()> {
    for Package { name, why } in packages {
        eprintln!("setup: missing {name}: {why}");
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    if programs::find("apt-get").is_none() {
        bail!(
            "can't install packages: there is no apt-get here\n{}",
            advice(&names, false)
        );
    }
    let done = root::command("sh").and_then(|mut shell| {
        shell.args(["-c", INSTALL, "install.sh"]).args(&names);
        logged(
            "installing packages with apt, a minute or two",
            "packages",
            &mut shell,
        )
    });
    done.map_err(|reason| {
        anyhow!(
            "can't install packages: {reason:#}\n{}",
            advice(&names, true)
        )
    })
}

/// Builds the linker against the LLVM of `compiler`, one of Debian's.
fn build_linker(compiler: &Compiler) -> Result<()> {
    let llvm = format!("llvm-{}", compiler.version.llvm);
    let prefix = Path::new("/usr/lib").join(&llvm);
    let bin = prefix.join("bin");
    if programs::find_in(&bin, "llvm-config").is_none() {
        install(&[package(
            &format!("{llvm}-dev"),
            "what the linker of eBPF objects is made of",
        )])?;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([bin].into_iter().chain(env::split_paths(&path)))
        .context("LLVM can't stand in PATH")?;
    let mut install = cargo();
    install
        // Without these the build takes any LLVM that is installed.
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", path)
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER,
            "--locked",
            "--force",
            "--no-default-features",
            "--features",
            &llvm,
            "--root",
        ])
        .arg(xtask::root().join("target/tools"));
    let what = format!(
        "building bpf-linker {LINKER}, which links eBPF objects, into target/tools, a minute or two"
    );
    logged(&what, "linker", &mut install)
}

/// The program `cargo-mutants`, installed into `target/tools` where it is not there.
pub(crate) fn cargo_mutants() -> Result<PathBuf> {
    let tools = xtask::root().join("target/tools");
    let program = tools.join("bin/cargo-mutants");
    let wanted = format!("cargo-mutants {MUTANTS}");
    let version = Command::new(&program)
        .args(["mutants", "--version"])
        .output();
    if version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).trim() == wanted) {
        return Ok(program);
    }
    let mut install = cargo();
    install
        .args(["install", "cargo-mutants", "--version", MUTANTS])
        .args(["--locked", "--force", "--root"])
        .arg(tools);
    let what = format!("building {wanted}, which plants bugs, into target/tools, some minutes");
    logged(&what, "mutants", &mut install)?;
    Ok(program)
}

/// Runs a command whose output matters only when it fails, and goes to a log.
fn logged(what: &str, name: &str, command: &mut Command) -> Result<()> {
    eprintln!("setup: {what}");
    let begun = Instant::now();
    let target = xtask::root().join("target");
    let path = target.join(format!("setup-{name}.log"));
    let log = fs::create_dir_all(&target)
        .and_then(|()| File::create(&path))
        .with_context(|| format!("can't write {}", path.display()))?;
    command
        .stdout(log.try_clone().context("can't copy the log's descriptor")?)
        .stderr(log);
    let status = command
        .status()
        .with_context(|| format!("can't run {}", command.get_program().display()))?;
    if !status.success() {
        let log = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(5)..].join("\n    ");
        bail!("{status}; {} ends in\n    {end}", path.display());
    }
    eprintln!("setup: done in {} s", begun.elapsed().as_secs());
    Ok(())
}

/// What to type where the Debian packages `packages` can't be installed, on a system with or without `apt`.
fn advice(packages: &[&str], apt: bool) -> String {
    let (compilers, programs): (Vec<&str>, Vec<&str>) = packages
        .iter()
        .partition(|name| COMPILER.iter().any(|package| package.name == **name));
    let mut advice = String::new();
    let mut line = |text: &str| writeln!(advice, "{text}").unwrap_or_default();
    if apt {
        line("As root:");
        line("    apt-get update");
        line(&format!(
            "    apt-get install --no-install-recommends {}",
            packages.join(" ")
        ));
        if !compilers.is_empty() {
            // Which LLVM the compiler has is known once it is installed.
            line(
                r#"    apt-get install --no-install-recommends "llvm-$(/usr/bin/rustc -vV | sed -n 's/LLVM version: \([0-9]*\).*/\1/p')-dev""#,
            );
            line("Where the distribution has no such compiler:");
        }
    } else {
        if !programs.is_empty() {
            line(&format!(
                "By the means of this system, the programs of these Debian packages: {}",
                programs.join(" ")
            ));
        }
        if !compilers.is_empty() {
            line("The compiler and the linker:");
        }
    }
    if !compilers.is_empty() {
        line("    rustup toolchain install nightly --profile minimal --component rust-src");
        line("    cargo install cargo-binstall");
        line("    cargo binstall bpf-linker");
    }
    advice + "Then: cargo xtask setup"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(packages: &[Package<'a>]) -> Vec<&'a str> {
        packages.iter().map(|package| package.name).collect()
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        assert_eq!(missing(Some(Set::Debian), |_| true), []);
        assert_eq!(
            missing(Some(Set::Rustup), |program| program != CLIPPY.0),
            []
        );
    }

    #[test]
    fn a_bare_machine_needs_all_of_it_the_compiler_first() {
        let all = names(&missing(None, |_| false));
        assert_eq!(
            all[..4],
            [
                "rustc-web",
                "cargo-web",
                "libstd-rust-web-dev-bpf",
                "rust-web-clippy"
            ]
        );
        assert_eq!(all.len(), COMPILER.len() + 1 + PROGRAMS.len());
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(
            names(&missing(Some(Set::Debian), |program| program != "nginx")),
            ["nginx-light"]
        );
        assert_eq!(
            names(&missing(Some(Set::Debian), |program| program != CLIPPY.0)),
            ["rust-web-clippy"]
        );
    }

    #[test]
    fn advice_for_debian_is_a_line_to_paste() {
        let text = advice(&["nginx-light", "wrk"], true);
        assert!(
            text.contains("    apt-get install --no-install-recommends nginx-light wrk\n"),
            "{text}"
        );
        assert!(!text.contains("llvm") && !text.contains("rustup"), "{text}");
        let text = advice(&["rustc-web", "wrk"], true);
        assert!(
            text.contains("llvm-$(") && text.contains("rustup toolchain install nightly"),
            "{text}"
        );
    }

    #[test]
    fn advice_for_other_systems_names_no_apt() {
        let text = advice(&["rustc-web", "nginx-light"], false);
        assert!(!text.contains("apt-get"), "{text}");
        assert!(
            text.contains("packages: nginx-light\n") && text.contains("cargo binstall bpf-linker"),
            "{text}"
        );
        assert!(!advice(&["wrk"], false).contains("rustup"));
    }

    #[test]
    fn the_end_of_the_log_comes_with_the_failure() {
        let error = logged(
            "failing",
            "of-a-test",
            Command::new("sh").args(["-c", "echo first; echo; seq 5; exit 3"]),
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("exit status: 3")
                && error.ends_with("4\n    5")
                && !error.contains("first"),
            "{error}"
        );
    }
}
