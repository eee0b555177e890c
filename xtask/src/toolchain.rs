//! Which compiler and which linker can build for the kernel's virtual machine.
//!
//! There are two sets, and either is complete by itself:
//! 1. a rustup nightly with `rust-src`, which compiles `core` for the target from source;
//! 2. Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, which brings `core` compiled.
//!
//! Both need a `bpf-linker` whose LLVM is not older than the compiler's, for the linker reads what the compiler's LLVM wrote.
//! Nothing here installs anything, and no version is assumed: what is found is asked.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{programs, root};

/// The kernel's virtual machine, little endian.
pub const TARGET: &str = "bpfel-unknown-none";

/// The oldest compiler that the workspace accepts, as `Cargo.toml` states it.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What the recipe works with: a compiler and a linker that fit each other.
#[derive(Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Compiles to LLVM bitcode.
    pub compiler: Compiler,
    /// The `bpf-linker` that turns the bitcode into an object.
    pub linker: PathBuf,
}

/// A `rustc` and `cargo` that can compile for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// Which of the two sets it belongs to.
    pub set: Set,
    /// The directory of its `rustc`, `cargo` and `cargo-clippy`.
    pub bin: PathBuf,
    /// What it says about itself.
    pub version: Version,
}

/// The two ways to get a compiler for [`TARGET`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// A rustup nightly; `core` is compiled from `rust-src`.
    Rustup,
    /// Debian's packages; `core` comes compiled.
    Debian,
}

/// The versions that `rustc -vV` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Major and minor version of the compiler.
    pub release: (u32, u32),
    /// Major version of the LLVM inside.
    pub llvm: u32,
}

/// A `bpf-linker`, and the LLVM it is linked with; `None` where that can't be seen from outside (linked statically).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Linker {
    path: PathBuf,
    llvm: Option<u32>,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.compiler, self.linker.display())
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.set {
            Set::Rustup => "rustup's nightly with rust-src",
            Set::Debian => "Debian's rustc-web",
        };
        let Version {
            release: (major, minor),
            llvm,
        } = self.version;
        write!(f, "{name} {major}.{minor} (LLVM {llvm})")
    }
}

/// Finds a complete set; where both are, the first.
///
/// # Errors
/// In one line, what is missing.
pub fn detect() -> Result<Toolchain> {
    let compilers = [rustup(), debian()].into_iter().flatten().collect();
    choose(compilers, &linkers())
}

/// Debian's compiler, where it has `core` for [`TARGET`] and is not too old.
#[must_use]
pub fn debian() -> Option<Compiler> {
    let bin = Path::new("/usr/bin");
    let rustc = programs::find_in(bin, "rustc")?;
    let libraries =
        output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])).ok()?;
    let has_core = fs::read_dir(libraries.trim())
        .ok()?
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libcore-"));
    if has_core {
        compiler(Set::Debian, bin)
    } else {
        None
    }
}

/// rustup's newest nightly that has `rust-src`.
fn rustup() -> Option<Compiler> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".rustup")))?;
    let toolchains = fs::read_dir(home.join("toolchains")).ok()?;
    newest_nightly(
        toolchains
            .flatten()
            .map(|entry| entry.path())
            .filter(|toolchain| toolchain.join("lib/rustlib/src/rust/library/core").is_dir()),
    )
    .and_then(|toolchain| compiler(Set::Rustup, &toolchain.join("bin")))
}

/// The nightly that rustup keeps up to date, else the one with the latest date in its name.
fn newest_nightly(toolchains: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let date = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix("nightly-")?;
        // `nightly-x86_64-..` sorts after `nightly-2026-01-31-x86_64-..`, for letters sort after digits.
        Some(name.to_owned())
    };
    toolchains
        .filter(|path| date(path).is_some())
        .max_by_key(|path| date(path))
}

/// The compiler in `bin`, unless it is older than the workspace accepts.
fn compiler(set: Set, bin: &Path) -> Option<Compiler> {
    let version = parse_version(&output(Command::new(bin.join("rustc")).arg("-vV")).ok()?)?;
    (version.release >= parse_release(OLDEST)?).then(|| Compiler {
        set,
        bin: bin.to_owned(),
        version,
    })
}

/// Every `bpf-linker` that runs: the one that `cargo xtask setup` builds, then the one on `PATH`.
fn linkers() -> Vec<Linker> {
    [
        Some(root().join("target/tools/bin/bpf-linker")),
        programs::find("bpf-linker"),
    ]
    .into_iter()
    .flatten()
    .filter(|path| output(Command::new(path).arg("--version")).is_ok())
    .map(|path| {
        let llvm = output(Command::new("ldd").arg(&path))
            .ok()
            .and_then(|libraries| parse_linked_llvm(&libraries));
        Linker { path, llvm }
    })
    .collect()
}

/// The first compiler for which there is a linker, with the first such linker.
fn choose(compilers: Vec<Compiler>, linkers: &[Linker]) -> Result<Toolchain> {
    let Some(Version { llvm, .. }) = compilers.first().map(|compiler| compiler.version) else {
        bail!(
            "no compiler for eBPF (a rustup nightly with rust-src, or Debian's rustc-web {OLDEST} or newer with libstd-rust-web-dev-bpf)"
        );
    };
    compilers
        .into_iter()
        .find_map(|compiler| {
            let fits =
                |linker: &&Linker| linker.llvm.is_none_or(|llvm| llvm >= compiler.version.llvm);
            let linker = linkers.iter().find(fits)?.path.clone();
            Some(Toolchain { compiler, linker })
        })
        .with_context(|| format!("no bpf-linker that reads LLVM {llvm}"))
}

/// Reads the output of `rustc -vV`.
fn parse_version(verbose: &str) -> Option<Version> {
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    Some(Version {
        release: parse_release(field("release")?)?,
        llvm: parse_release(field("LLVM version")?)?.0,
    })
}

/// Reads major and minor of `1.96.0`, `1.97.0-nightly` or `1.90`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads the major version of `libLLVM` out of what `ldd` prints: `libLLVM.so.22.1 => ..` or, from before LLVM 19, `libLLVM-18.so => ..`.
fn parse_linked_llvm(ldd: &str) -> Option<u32> {
    ldd.lines().find_map(|line| {
        let library = line.trim().strip_prefix("libLLVM")?;
        let version = library
            .strip_prefix(".so.")
            .or_else(|| library.strip_prefix('-'))?;
        version.split(['.', ' ']).next()?.parse().ok()
    })
}

/// What a command that succeeds prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler_of(set: Set, llvm: u32) -> Compiler {
        Compiler {
            set,
            bin: PathBuf::from("/bin"),
            version: Version {
                release: (1, 96),
                llvm,
            },
        }
    }

    fn linker(path: &str, llvm: Option<u32>) -> Linker {
        Linker {
            path: PathBuf::from(path),
            llvm,
        }
    }

    #[test]
    fn versions_are_read_from_what_rustc_prints() {
        let stable = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(
            parse_version(stable),
            Some(Version {
                release: (1, 96),
                llvm: 22
            })
        );
        let nightly = "release: 1.97.0-nightly\nLLVM version: 23.0.0\n";
        assert_eq!(
            parse_version(nightly),
            Some(Version {
                release: (1, 97),
                llvm: 23
            })
        );
        assert_eq!(parse_version("release: 1.96.0\n"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn the_oldest_release_of_the_manifest_is_readable() {
        assert!(
            parse_release(OLDEST).is_some_and(|oldest| oldest > (1, 80)),
            "{OLDEST}"
        );
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(parse_release("1.100.0") > parse_release("1.96.0"));
        assert_eq!(parse_release("1"), None);
        assert_eq!(parse_release("one.two"), None);
    }

    #[test]
    fn the_linked_llvm_is_read_from_what_ldd_prints() {
        assert_eq!(
            parse_linked_llvm(
                "\tlinux-vdso.so.1 (0x0)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)\n"
            ),
            Some(22)
        );
        assert_eq!(
            parse_linked_llvm("\tlibLLVM-18.so.1 => /usr/lib/libLLVM-18.so.1 (0x0)\n"),
            Some(18)
        );
        assert_eq!(
            parse_linked_llvm("\tlibLLVM.so.22.1 => not found\n"),
            Some(22)
        );
        assert_eq!(parse_linked_llvm("\tstatically linked\n"), None);
    }

    #[test]
    fn the_first_complete_set_wins() {
        let compilers = vec![compiler_of(Set::Rustup, 22), compiler_of(Set::Debian, 22)];
        let chosen = choose(
            compilers,
            &[linker("tools", Some(22)), linker("path", Some(23))],
        )
        .unwrap();
        assert_eq!(chosen.compiler.set, Set::Rustup);
        assert_eq!(chosen.linker, Path::new("tools"));
    }

    #[test]
    fn a_set_whose_bitcode_no_linker_reads_is_passed_over() {
        let compilers = vec![compiler_of(Set::Rustup, 23), compiler_of(Set::Debian, 22)];
        assert_eq!(
            choose(compilers, &[linker("tools", Some(22))])
                .unwrap()
                .compiler
                .set,
            Set::Debian
        );
    }

    #[test]
    fn a_newer_or_static_linker_fits_and_an_older_one_does_not() {
        let chosen = |llvm| choose(vec![compiler_of(Set::Debian, 22)], &[linker("tools", llvm)]);
        assert!(chosen(Some(23)).is_ok());
        assert!(chosen(None).is_ok());
        assert_eq!(
            chosen(Some(21)).unwrap_err().to_string(),
            "no bpf-linker that reads LLVM 22"
        );
    }

    #[test]
    fn without_a_compiler_the_error_names_both_sets() {
        let error = choose(vec![], &[linker("tools", Some(22))])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("rust-src") && error.contains("libstd-rust-web-dev-bpf"),
            "{error}"
        );
    }

    #[test]
    fn rustups_own_nightly_comes_before_dated_ones_and_stable_never() {
        let newest = |names: &[&str]| {
            newest_nightly(names.iter().map(|name| Path::new("/toolchains").join(name)))
        };
        let host = "x86_64-unknown-linux-gnu";
        let (rolling, old, new) = (
            format!("nightly-{host}"),
            format!("nightly-2025-12-31-{host}"),
            format!("nightly-2026-01-02-{host}"),
        );
        assert_eq!(
            newest(&[&new, &rolling, &old]),
            Some(Path::new("/toolchains").join(&rolling))
        );
        assert_eq!(
            newest(&[&new, &old]),
            Some(Path::new("/toolchains").join(&new))
        );
        assert_eq!(newest(&["stable-x86_64-unknown-linux-gnu"]), None);
    }
}
