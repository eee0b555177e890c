//! What the kernel holds, as bpftool shows it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// A BPF link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it is pinned.
    pub pin: PathBuf,
    /// Its id, which lives as long as the attachment.
    pub id: u64,
    /// The id of the program in it.
    pub program: u64,
}

/// The links pinned below a directory, sorted by pin.
///
/// # Errors
/// Where the directory cannot be read.
pub fn links_pinned_in(directory: &Path) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    let mut unread = vec![directory.to_owned()];
    while let Some(directory) = unread.pop() {
        for entry in
            std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                unread.push(entry.path());
            } else {
                links.extend(link_at(&entry.path())?);
            }
        }
    }
    links.sort_by(|left, right| left.pin.cmp(&right.pin));
    Ok(links)
}

/// The link pinned at a path; `None` where something else is.
fn link_at(pin: &Path) -> Result<Option<Link>> {
    let mut bpftool = command::words("bpftool --json link show pinned");
    let output = command::output(bpftool.arg(pin))?;
    let shown: Value = match serde_json::from_slice(&output.stdout) {
        Ok(shown) if output.status.success() => shown,
        _ => return Ok(None),
    };
    let link = shown
        .as_array()
        .and_then(|all| all.first())
        .unwrap_or(&shown);
    let (Some(id), Some(program)) = (link["id"].as_u64(), link["prog_id"].as_u64()) else {
        return Ok(None);
    };
    Ok(Some(Link {
        pin: pin.to_owned(),
        id,
        program,
    }))
}
