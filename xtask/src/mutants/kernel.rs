//! The bugs of `tests/mutants`: each is planted in a copy of the sources, built, and held against the suite `packets`, which is built
//! once and loads the object that an environment variable names.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use xtask::recipe;
use xtask::toolchain::{self, Toolchain};
use xtask::variables;

use super::plant::Plant;
use super::verdicts::Verdicts;
use crate::{build, root};

/// A test of the suite that needs nothing but a program that the verifier takes.
const LOADS: &str = "the_maintenance_program_tells_the_time";

/// Modules of the suite that notice most: they run first.
const SHARP: [&str; 2] = ["known::", "malformed::"];

/// Plants one after the other.
pub(super) fn run(plants: &[Plant]) -> Result<Verdicts> {
    let bench = Bench::new()?;
    bench.build().context("the sources as they are")?;
    if let Some(test) = bench.fails(&[])? {
        bail!("the suite `packets` fails without any bug: {test}");
    }
    let mut verdicts = Verdicts::default();
    for (number, plant) in (1..).zip(plants) {
        let Plant {
            name, stage, what, ..
        } = plant;
        let verdict = bench.hold(plant)?;
        eprintln!(
            "{number}/{} {name} ({stage}: {what}): {verdict}",
            plants.len()
        );
        match verdict {
            Verdict::Caught(_) => verdicts.caught += 1,
            Verdict::Refused => verdicts.refused += 1,
            Verdict::Survived => verdicts.survivors.push(name.clone()),
        }
    }
    Ok(verdicts)
}

/// What became of a bug.
enum Verdict {
    /// By this test.
    Caught(String),
    Refused,
    Survived,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Caught(test) => write!(f, "caught by {test}"),
            Self::Refused => f.write_str("refused by the verifier"),
            Self::Survived => f.write_str("SURVIVED"),
        }
    }
}

/// A copy of the sources, and what is done with it.
struct Bench {
    toolchain: Toolchain,
    tree: PathBuf,
    object: PathBuf,
    suite: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let directory = xtask::root().join("target/mutants");
        let tree = directory.join("tree");
        copy(&tree)?;
        Ok(Self {
            toolchain: toolchain::detect()?,
            tree,
            object: directory.join("lb.o"),
            suite: suite()?,
        })
    }

    fn build(&self) -> Result<()> {
        recipe::build_in(&self.tree, &self.toolchain, "lb", &self.object)
    }

    fn hold(&self, plant: &Plant) -> Result<Verdict> {
        let file = self.tree.join(&plant.file);
        let source =
            fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let planted = plant.planted(&source)?;
        fs::write(&file, planted).with_context(|| format!("can't write {}", file.display()))?;
        let built = self.build();
        fs::write(&file, source).with_context(|| format!("can't restore {}", file.display()))?;
        built.with_context(|| format!("with the bug `{}`", plant.name))?;
        if self.fails(&["--exact", LOADS])?.is_some() && self.is_refused()? {
            return Ok(Verdict::Refused);
        }
        for tests in [&SHARP[..], &[]] {
            if let Some(test) = self.fails(tests)? {
                return Ok(Verdict::Caught(test));
            }
        }
        Ok(Verdict::Survived)
    }

    fn suite(&self, arguments: &[&str]) -> Result<Command> {
        let mut suite = root::command(&self.suite)?;
        suite
            .current_dir(xtask::root())
            .env(variables::OBJECT, &self.object)
            .args(arguments);
        Ok(suite)
    }

    /// The first test that fails; the others are not waited for.
    fn fails(&self, arguments: &[&str]) -> Result<Option<String>> {
        let mut suite = self.suite(arguments)?;
        let mut child = suite
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("can't run the suite `packets`")?;
        let output = child.stdout.take().context("no output of the suite")?;
        for line in BufReader::new(output).lines() {
            let line = line.context("reading the suite's output")?;
            let Some(test) = line
                .strip_prefix("test ")
                .and_then(|rest| rest.strip_suffix(" ... FAILED"))
            else {
                continue;
            };
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended by itself. Its programs and maps go with it.
                kill_process(pid, Signal::TERM).ok();
            }
            child.wait().context("can't wait for the suite")?;
            return Ok(Some(test.to_owned()));
        }
        let status = child.wait().context("can't wait for the suite")?;
        Ok((!status.success()).then(|| format!("the suite as a whole ({status})")))
    }

    /// Whether the kernel does not take the object.
    fn is_refused(&self) -> Result<bool> {
        let output = self.suite(&["--exact", LOADS])?.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("the BPF_PROG_LOAD syscall"))
    }
}

/// Builds the suite and gives its path.
fn suite() -> Result<PathBuf> {
    let output = build::cargo()
        .args([
            "test",
            "--locked",
            "--package",
            "lb-tests",
            "--test",
            "packets",
            "--no-run",
        ])
        .stderr(Stdio::piped())
        .output()
        .context("can't run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let path = said.lines().find_map(|line| {
        let (_, path) = line.trim().strip_prefix("Executable ")?.split_once('(')?;
        path.strip_suffix(')')
    });
    match path {
        Some(path) if output.status.success() => Ok(xtask::root().join(path)),
        _ => bail!("the suite `packets` does not build:\n{said}"),
    }
}

/// Copies what the object is made of, with the manifests that cargo asks for. The copy keeps what was built in it.
fn copy(tree: &Path) -> Result<()> {
    /// Packages that are members of the workspace and no part of the object.
    const OTHERS: [&str; 3] = ["lb-userspace", "tests", "xtask"];
    let from = xtask::root();
    for source in recipe::SOURCES {
        copy_newer(&from.join(source), &tree.join(source))?;
    }
    for package in OTHERS {
        let manifest = Path::new(package).join("Cargo.toml");
        copy_newer(&from.join(&manifest), &tree.join(&manifest))?;
        for place in ["src", "suites", "build.rs"] {
            let place = Path::new(package).join(place);
            if from.join(&place).exists() {
                copy_newer(&from.join(&place), &tree.join(&place))?;
            }
        }
    }
    Ok(())
}

/// Copies a file or directory; a file that is the same is left as it is, for cargo's sake.
fn copy_newer(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to).with_context(|| format!("can't create {}", to.display()))?;
        for entry in fs::read_dir(from).with_context(|| format!("can't read {}", from.display()))? {
            let name = entry?.file_name();
            copy_newer(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    let new = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
    }
    fs::write(to, new).with_context(|| format!("can't write {}", to.display()))
}
