//! A directory for one test, with a bpffs of its own in it.
//!
//! The agent's pins go to that bpffs: two tests never see each other's, nothing can be left in `/sys/fs/bpf`, and
//! when the mount goes, so do pins, programs and links. It lies in `/run`, whose paths are short enough for a socket.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::teardown::Undo;
use crate::{names, sweep};

/// What the kernel puts into a new bpffs (`kernel/bpf/preload`).
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];

/// A directory, removed with all that is in it when dropped.
pub struct Scratch {
    path: PathBuf,
    _undo: Undo,
}

impl Scratch {
    /// Makes an empty one; `role` is the readable part of its name.
    ///
    /// # Errors
    /// Where `/run` is not writable.
    pub fn new(role: &str) -> Result<Self> {
        sweep::once()?;
        let path = Path::new(sweep::SCRATCH).join(names::unique(role));
        let create = || fs::create_dir(&path).with_context(|| path.display().to_string());
        let remove = {
            let path = path.clone();
            move || sweep::remove_directory(&path)
        };
        let ((), undo) = Undo::make(create, |()| Box::new(remove))?;
        Ok(Self { path, _undo: undo })
    }

    /// Where a file of this name in it is or will be.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file and gives its path.
    ///
    /// # Errors
    /// That of writing.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Mounts a bpffs in it, at [`Scratch::bpffs`].
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn mount_bpffs(&self) -> Result<()> {
        let path = self.bpffs();
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        mount("bpf", &path, "bpf", MountFlags::empty(), c"mode=0700")
            .with_context(|| format!("mounting a bpffs at {}", path.display()))
    }

    /// Where its bpffs is mounted.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.file(sweep::BPFFS)
    }

    /// Everything pinned in its bpffs, directories included, sorted; without the two iterators that the kernel itself
    /// puts into every one.
    ///
    /// # Errors
    /// Where it is not mounted.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut unread = vec![self.bpffs()];
        while let Some(directory) = unread.pop() {
            for entry in
                fs::read_dir(&directory).with_context(|| directory.display().to_string())?
            {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    unread.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.retain(|path| {
            !PRELOADED
                .iter()
                .any(|name| *path == self.bpffs().join(name))
        });
        found.sort();
        Ok(found)
    }
}
