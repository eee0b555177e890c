//! `cargo xtask mutants`: plants small bugs, one at a time, and tells which of them no test notices.
//!
//! Two parts. Over `lb-common` and `lb-userspace` cargo-mutants plants, and the host's tests have to notice. In the kernel's program the
//! bugs of `tests/mutants/*.plant` are planted, and the suite `packets` has to notice. What may live is in
//! `tests/mutants/survivors.txt`, with its reason.

mod host;
mod kernel;
mod plant;
mod verdicts;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::setup;
use plant::Plant;
use verdicts::{Reasons, Verdicts};

/// Plants small bugs, one at a time, and fails where too many of them, or any without a reason, go unnoticed: takes hours for everything
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Plant only in this file or directory, relative to the root
    path: Option<PathBuf>,
    /// Plant only in the kernel's program, the bugs of `tests/mutants`
    #[arg(long, conflicts_with_all = ["shard", "in_diff"])]
    kernel: bool,
    /// Of these bugs only those whose names contain this; more than one may be named
    #[arg(long = "plant", value_name = "NAME", requires = "kernel")]
    plants: Vec<String>,
    /// Plant only in `lb-common` and `lb-userspace`, by cargo-mutants
    #[arg(long, conflicts_with = "kernel")]
    host: bool,
    /// Of what cargo-mutants would plant, only the K-th of N parts, as K/N, K from 0
    #[arg(long, value_name = "K/N", requires = "host")]
    shard: Option<String>,
    /// Of what cargo-mutants would plant, only what lies within this diff
    #[arg(long, value_name = "FILE", requires = "host")]
    in_diff: Option<PathBuf>,
}

/// The crates that the host's tests cover; the kernel's program is made of the first.
const HOST: [&str; 2] = ["lb-common", "lb-userspace"];
/// At least this part of a hundred has to be noticed.
const NOTICED: usize = 90;

impl Arguments {
    #[expect(
        clippy::print_stdout,
        reason = "the closing lines are the command's result"
    )]
    pub(crate) fn run(&self) -> Result<()> {
        let path = self.path.as_deref();
        if let Some(path) = path
            && !xtask::root().join(path).exists()
        {
            bail!(
                "{}: there is no such file or directory here",
                path.display()
            );
        }
        let reasons = Reasons::read(&xtask::root().join("tests/mutants/survivors.txt"))?;
        setup::ensure()?;
        let mut all = Verdicts::default();
        if !self.host {
            let plants = self.plants()?;
            if !plants.is_empty() {
                all.add(kernel::run(&plants)?);
            }
        }
        if !self.kernel {
            let packages = HOST.into_iter().filter(|package| meant(package, path));
            for package in packages {
                all.add(host::run(package, self)?);
            }
        }
        let faults = all.faults(&reasons, NOTICED);
        for survivor in &all.survivors {
            let reason = reasons
                .of(survivor)
                .unwrap_or("NOT LISTED in tests/mutants/survivors.txt");
            println!("survived: {survivor}: {reason}");
        }
        println!("{all}");
        if !faults.is_empty() {
            bail!("{}", faults.join("\nerror: "));
        }
        Ok(())
    }

    /// The bugs of the tree that are meant.
    fn plants(&self) -> Result<Vec<Plant>> {
        let mut plants = plant::all()?;
        let unknown = self
            .plants
            .iter()
            .find(|part| !plants.iter().any(|plant| plant.name.contains(*part)));
        if let Some(name) = unknown {
            bail!("no bug of tests/mutants is named like `{name}`");
        }
        plants.retain(|plant| {
            let named = self.plants.iter().any(|part| plant.name.contains(part));
            let within = self
                .path
                .as_ref()
                .is_none_or(|path| plant.file.starts_with(path));
            (named || self.plants.is_empty()) && within
        });
        for plant in &plants {
            let source = xtask::root().join(&plant.file);
            let source = std::fs::read_to_string(&source)
                .with_context(|| format!("can't read {}", source.display()))?;
            plant.planted(&source)?;
        }
        Ok(plants)
    }
}

/// Whether a package has, or is, what was named.
fn meant(package: &str, path: Option<&Path>) -> bool {
    path.is_none_or(|path| path.starts_with(package) || Path::new(package).starts_with(path))
}
