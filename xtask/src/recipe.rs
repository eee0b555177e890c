//! The recipe of the eBPF object: from the crate `lb-ebpf` to a file that the kernel loads.
//!
//! Takes what [`toolchain`] found, gives an object with BTF. Works from a build script too: there an outer cargo holds the lock of
//! the ordinary target directory and has filled the environment with what is true for the host, so the inner cargo gets its own
//! directory, `target/ebpf`, and a clean environment.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::root;
use crate::toolchain::{self, Set, TARGET, Toolchain};

/// What the object is made of, relative to the root of the checkout.
pub const SOURCES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/src",
    "lb-common/Cargo.toml",
    "lb-common/src",
];

/// Full debug information, which the linker turns into BTF; instructions up to the third version of the set, which every kernel from
/// 5.1 on has (rustc hands the CPU on to the linker by itself).
const RUSTFLAGS: [&str; 3] = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// The whole of a build script whose package embeds the program: builds the binary `program` of `lb-ebpf` into `$OUT_DIR/<program>.o`.
///
/// Where the toolchain is not complete, cargo's error is one line that says what is missing and names `cargo xtask setup`.
#[must_use]
pub fn build_script(program: &str) -> ExitCode {
    for source in SOURCES {
        tell_cargo(
            "rerun-if-changed",
            &root().join(source).display().to_string(),
        );
    }
    let toolchain = match toolchain::detect() {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            tell_cargo("error", &format!("{missing:#}: run `cargo xtask setup`"));
            // Cargo fails because of the line above; after a failing status it would print all that this script wrote as well.
            return ExitCode::SUCCESS;
        }
    };
    match embed(&toolchain, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell_cargo("error", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn embed(toolchain: &Toolchain, program: &str) -> Result<()> {
    for tool in [&toolchain.linker, &toolchain.compiler.bin.join("rustc")] {
        tell_cargo("rerun-if-changed", &tool.display().to_string());
    }
    let directory =
        env::var_os("OUT_DIR").context("OUT_DIR is not set: this is for build scripts")?;
    build(
        toolchain,
        program,
        &Path::new(&directory).join(program).with_extension("o"),
    )
}

#[expect(
    clippy::print_stdout,
    reason = "cargo reads a build script's standard output"
)]
fn tell_cargo(key: &str, value: &str) {
    println!("cargo::{key}={value}");
}

/// Builds the binary `program` of `lb-ebpf` and copies the object to `object`.
///
/// # Errors
/// When it does not compile; the compiler has said why on standard error.
pub fn build(toolchain: &Toolchain, program: &str, object: &Path) -> Result<()> {
    build_in(root(), toolchain, program, object)
}

/// [`build`] in another checkout, or a copy of one.
///
/// # Errors
/// As for [`build`].
pub fn build_in(tree: &Path, toolchain: &Toolchain, program: &str, object: &Path) -> Result<()> {
    let directory = target_directory(tree);
    fs::create_dir_all(&directory)
        .with_context(|| format!("can't create {}", directory.display()))?;
    // Cargo takes turns while it compiles, but puts the result in its place by removing what another build script may be copying.
    let turn =
        File::create(directory.join("recipe.lock")).context("can't create the recipe's lock")?;
    turn.lock().context("can't take the recipe's lock")?;

    let status = cargo(tree, toolchain, "build")?
        .args(["--bin", program])
        .status()
        .context("can't run cargo")?;
    if !status.success() {
        bail!("the program `{program}` of lb-ebpf does not build");
    }
    let built = directory.join(TARGET).join("release").join(program);
    fs::copy(&built, object)
        .with_context(|| format!("can't copy {} to {}", built.display(), object.display()))?;
    Ok(())
}

/// Runs clippy on `lb-ebpf`, as it is for the kernel, with warnings denied.
///
/// # Errors
/// When clippy finds something or the toolchain has no clippy.
pub fn clippy(toolchain: &Toolchain) -> Result<()> {
    let status = cargo(root(), toolchain, "clippy")?
        .args(["--bins", "--", "-Dwarnings"])
        .status()
        .context("can't run cargo clippy")?;
    if !status.success() {
        bail!("clippy is not content with lb-ebpf");
    }
    Ok(())
}

fn target_directory(tree: &Path) -> PathBuf {
    tree.join("target/ebpf")
}

/// A cargo of the toolchain, at work on `lb-ebpf` for the kernel.
fn cargo(tree: &Path, toolchain: &Toolchain, subcommand: &str) -> Result<Command> {
    let Toolchain { compiler, linker } = toolchain;
    let mut cargo = Command::new(compiler.bin.join("cargo"));
    for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_the_host(&name.to_string_lossy()))
    {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(tree)
        .env(
            "PATH",
            path_with([Some(compiler.bin.as_path()), linker.parent()])?,
        )
        .env("RUSTC", compiler.bin.join("rustc"))
        // aya-ebpf uses `asm_experimental_arch`, which a stable compiler grants only when told to.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"))
        .args([
            subcommand,
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "lb-ebpf",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(target_directory(tree));
    if compiler.set == Set::Rustup {
        cargo.args(["-Z", "build-std=core"]);
    }
    Ok(cargo)
}

/// `PATH` with `first` in front.
fn path_with(first: [Option<&Path>; 2]) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let first = first.into_iter().flatten().map(Path::to_owned);
    env::join_paths(first.chain(env::split_paths(&path)))
        .context("a directory of the toolchain can't stand in PATH")
}

/// Whether an environment variable is one that an outer cargo or rustup sets for the host's build, or one by which a user tunes it.
fn belongs_to_the_host(name: &str) -> bool {
    /// How to reach the registry, and the outer cargo's job server.
    const SHARED: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
        "RUSTUP_HOME",
    ];
    const HOST: [&str; 7] = [
        "CARGO",
        "CLIPPY_",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_",
    ];
    HOST.iter().any(|prefix| name.starts_with(prefix))
        && !SHARED.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_outer_cargo_sets_does_not_reach_the_inner_one() {
        let set_by_cargo = [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ];
        for name in set_by_cargo {
            assert!(belongs_to_the_host(name), "{name}");
        }
    }

    #[test]
    fn the_way_to_the_registry_does() {
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_MINE_INDEX",
            "HOME",
            "PATH",
            "RUSTUP_HOME",
            "RUST_BACKTRACE",
            "https_proxy",
        ] {
            assert!(!belongs_to_the_host(name), "{name}");
        }
    }

    #[test]
    fn the_toolchain_comes_first_on_the_path() {
        let path = path_with([Some(Path::new("/first")), None]).unwrap();
        let mut directories = env::split_paths(&path);
        assert_eq!(directories.next(), Some(PathBuf::from("/first")));
        assert_eq!(
            directories.next(),
            env::split_paths(&env::var_os("PATH").unwrap()).next()
        );
    }

    #[test]
    fn every_source_exists() {
        for source in SOURCES {
            assert!(root().join(source).exists(), "{source}");
        }
    }
}
