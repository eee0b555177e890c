//! What a guest has for a file system: an archive in cpio's `newc` format, unpacked by the kernel
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xtask::programs;

use super::image::Image;
use super::modules;
use crate::command;

/// The first program that runs: sets the guest up, and then runs what comes by the serial line.
const INIT: &str = include_str!("init.sh");
/// What the network and the serial line need; the kernel of the distribution has the rest built in.
const MODULES: [&str; 5] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "veth",
    "bridge",
];
/// Programs of the host's system that the guest has too. The shell of busybox takes an `ip` of its own, which can do less,
/// unless it is called `/bin/ip`.
const PROGRAMS: [&str; 3] = ["busybox", "ip", "ethtool"];

/// Writes an archive with a kernel's modules and `programs` of this build, each with its libraries, into a file.
///
/// # Errors
/// Where a program or a module is not there, or the file can't be written.
pub(super) fn write(image: &Image, programs: &[&Path], file: &Path) -> Result<()> {
    let mut archive = Archive::default();
    archive.add("init", EXECUTABLE, INIT.as_bytes());
    archive.add_entry("dev/console", CONSOLE.0, CONSOLE.1, &[]);
    let mut order = String::new();
    for (name, content) in modules::in_order(&image.modules, &MODULES)? {
        archive.add(&format!("modules/{name}.ko"), PLAIN, &content);
        order.push_str(&name);
        order.push('\n');
    }
    archive.add("modules/order", PLAIN, order.as_bytes());
    for name in PROGRAMS {
        let path = programs::find(name);
        let path = path.with_context(|| format!("no {name} (installed by `cargo xtask setup`)"))?;
        archive.add_program(name, &path)?;
    }
    for path in programs {
        let name = path.file_name().context("a program without a name")?;
        archive.add_program(&name.to_string_lossy(), path)?;
    }
    fs::write(file, archive.finish()).with_context(|| file.display().to_string())
}

/// Modes of a directory, a file and a program.
const DIRECTORY: u32 = 0o040_755;
const PLAIN: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
/// Mode of the console, which the kernel opens for the first program, and its number.
const CONSOLE: (u32, (u32, u32)) = (0o020_600, (5, 1));

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
}

impl Archive {
    /// A program as `bin/<name>`, and its libraries where they are on the host.
    fn add_program(&mut self, name: &str, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| path.display().to_string())?;
        self.add(&format!("bin/{name}"), EXECUTABLE, &content);
        // Fails for a program that needs none.
        let libraries = command::output(command::words("ldd").arg(path))?;
        let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
        for library in paths(&libraries) {
            ensure!(
                library.exists(),
                "{}: no {}",
                path.display(),
                library.display()
            );
            let content = fs::read(&library).with_context(|| library.display().to_string())?;
            let inside = library.strip_prefix("/").unwrap_or(&library);
            self.add(&inside.to_string_lossy(), EXECUTABLE, &content);
        }
        Ok(())
    }

    /// A file, and the directories that it is in.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.add_entry(name, mode, (0, 0), content);
    }

    fn add_entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let path = Path::new(name);
        let mut parents: Vec<_> = path.ancestors().skip(1).collect();
        parents.retain(|parent| !parent.as_os_str().is_empty());
        for parent in parents.into_iter().rev() {
            if self.names.insert(parent.to_owned()) {
                self.write(&parent.to_string_lossy(), DIRECTORY, (0, 0), &[]);
            }
        }
        if self.names.insert(path.to_owned()) {
            self.write(name, mode, device, content);
        }
    }

    fn write(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let (size, name_size) = (content.len(), name.len() + 1);
        let number = self.names.len();
        let (major, minor) = device;
        // Number, mode, owner, group, links, time, size, device it is on, device that it is, size of the name, checksum.
        let header = format!(
            "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{major:08x}{minor:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend(header.bytes());
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

/// The paths in what ldd says: `libc.so.6 => /lib/libc.so.6 (0x7f..)`, `/lib64/ld-linux-x86-64.so.2 (0x7f..)`.
fn paths(said: &str) -> Vec<PathBuf> {
    let words = said.split_whitespace();
    let paths = words.filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_taken_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            paths(said),
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(paths("\tstatically linked\n").is_empty());
    }

    #[test]
    fn an_archive_has_each_directory_once_and_every_part_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.add("bin/a", EXECUTABLE, b"12345");
        archive.add("bin/b", PLAIN, b"");
        archive.add("bin/a", PLAIN, b"again");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let heads: Vec<_> = text.match_indices("070701").collect();
        assert_eq!(heads.len(), 4);
        assert!(
            heads.iter().all(|(position, _)| position % 4 == 0),
            "{heads:?}"
        );
        assert!(text.contains("000081ed") && text.contains("12345\x00\x00\x00070701"));
    }
}
