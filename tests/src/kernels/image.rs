//! A kernel as its package has it: what is booted, and where its modules are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A kernel in a directory.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The kernel itself.
    pub kernel: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

impl Image {
    /// The kernel of a package that was unpacked into `directory`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let boot = directory.join("boot");
        let entries = fs::read_dir(&boot).with_context(|| boot.display().to_string())?;
        let mut names = entries.flatten().map(|entry| entry.file_name());
        let name = names.find_map(|name| {
            let name = name.into_string().ok()?;
            name.strip_prefix("vmlinuz-").map(str::to_owned)
        });
        let release = name.with_context(|| format!("no kernel in {}", boot.display()))?;
        Ok(Self {
            kernel: boot.join(format!("vmlinuz-{release}")),
            modules: directory.join("lib/modules").join(&release),
            release,
        })
    }
}
