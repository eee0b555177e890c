//! Modules of a kernel, each behind those that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::command;

/// A module's name, as `lsmod` shows it, and its file, unpacked.
pub(super) type Module = (String, Vec<u8>);

/// The modules `wanted` and what they need, in the order in which they have to be loaded. What the kernel has built in
/// is left out.
///
/// # Errors
/// Where the kernel has no such module.
pub(super) fn in_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let builtin = directory.join("modules.builtin");
    let builtin = fs::read_to_string(&builtin).with_context(|| builtin.display().to_string())?;
    let mut shelf = Shelf {
        files: files(&directory.join("kernel"))?,
        builtin: builtin.lines().map(|path| name(Path::new(path))).collect(),
        taken: Vec::new(),
    };
    for module in wanted {
        shelf.take(module)?;
    }
    Ok(shelf.taken)
}

struct Shelf {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
    taken: Vec<Module>,
}

impl Shelf {
    fn take(&mut self, module: &str) -> Result<()> {
        if self.taken.iter().any(|(name, _)| name == module) {
            return Ok(());
        }
        let Some(path) = self.files.get(module) else {
            let is_builtin = self.builtin.iter().any(|name| name == module);
            ensure!(is_builtin, "the kernel has no module {module}");
            return Ok(());
        };
        let content = read(path)?;
        for needed in needs(&content) {
            self.take(&needed)?;
        }
        self.taken.push((module.to_owned(), content));
        Ok(())
    }
}

/// Every module below a directory, by name.
fn files(directory: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut unread = vec![directory.to_owned()];
    while let Some(directory) = unread.pop() {
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                unread.push(path);
            } else {
                found.insert(name(&path), path);
            }
        }
    }
    Ok(found)
}

/// The name of a module by its path: files are called `x-y.ko`, where the kernel says `x_y`.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split(".ko").next().unwrap_or_default();
    stem.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let mut unpack = command::words("busybox xz -dc");
        let output = command::output(unpack.arg(path))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", path.display());
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| path.display().to_string())
}

/// What a module needs, by its own words (`depends=a,b` in the section `.modinfo`).
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let found = module.windows(KEY.len()).position(|bytes| bytes == KEY);
    let Some(begin) = found.map(|position| position + KEY.len()) else {
        return Vec::new();
    };
    let end = module[begin..].iter().position(|byte| *byte == 0);
    let names = &module[begin..begin + end.unwrap_or(0)];
    let names = String::from_utf8_lossy(names);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"\x7fELF..\0license=GPL\0depends=virtio,virtio_ring\0retpoline=Y\0";
        assert_eq!(needs(module), ["virtio", "virtio_ring"]);
        assert!(needs(b"\0depends=\0name=veth\0").is_empty());
        assert!(needs(b"\x7fELF").is_empty());
    }

    #[test]
    fn files_are_named_as_the_kernel_names_modules() {
        assert_eq!(name(Path::new("kernel/drivers/net/veth.ko")), "veth");
        assert_eq!(name(Path::new("kernel/virtio-rng.ko.xz")), "virtio_rng");
    }
}
