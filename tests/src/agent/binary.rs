//! Where the agent's executable is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use xtask::variables::AGENT;

use crate::command;

/// The `lb` that belongs to this build: the variable [`AGENT`] where it is set, otherwise that beside the running
/// test, built by cargo first where it is not there or older than its sources. So no suite meets an agent of yesterday.
///
/// # Errors
/// Where it cannot be built, with the compiler's words.
pub fn path() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = env::var_os(AGENT) {
        return Ok(path.into());
    }
    let found = FOUND.get_or_init(|| beside_the_test().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow!(error))
}

fn beside_the_test() -> Result<PathBuf> {
    let test = env::current_exe()?;
    // <target>/<profile>/deps/<test>, or <target>/<profile>/<program>
    let mut directories = test.ancestors().skip(1);
    let profile = directories
        .find(|directory| !directory.ends_with("deps"))
        .context("no directory")?;
    let lb = profile.join("lb");
    if !is_fresh(&lb) {
        build(profile)?;
    }
    Ok(lb)
}

/// Whether an executable is younger than all the sources that cargo lists beside it.
fn is_fresh(lb: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    let Ok(built) = modified(lb) else {
        return false;
    };
    let Ok(sources) = fs::read_to_string(lb.with_extension("d")) else {
        return false;
    };
    let changed =
        |source: &str| modified(Path::new(source)).unwrap_or(SystemTime::UNIX_EPOCH) > built;
    !sources.split_whitespace().skip(1).any(changed)
}

fn build(profile: &Path) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args([
        "build",
        "--quiet",
        "--package",
        "lb-userspace",
        "--bin",
        "lb",
    ]);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let target = profile.parent().context("no target directory")?;
    command::run(command.arg("--target-dir").arg(target)).map(drop)
}
