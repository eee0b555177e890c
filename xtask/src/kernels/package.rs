//! Debian's kernels: found by apt, unpacked into `target/kernels`, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::build::run;
use crate::root;

/// The directory with a kernel of this line. It is fetched where it is not there yet, the newest that there is.
pub(super) fn directory(line: &str) -> Result<PathBuf> {
    let directory = xtask::root().join("target/kernels").join(line);
    if !directory.join("boot").exists() {
        fetch(line, &directory).with_context(|| {
            format!("can't get a kernel {line} (Debian 12 has them, in its security archive)")
        })?;
    }
    Ok(directory)
}

fn fetch(line: &str, directory: &Path) -> Result<()> {
    let fetched = known(line).and_then(|names| newest(&names, directory));
    if let Err(error) = fetched {
        eprintln!("kernels: {error:#}; asking for newer lists of packages");
        run(root::command("apt-get")?.args(["update", "--quiet"]))?;
        newest(&known(line)?, directory)?;
    }
    Ok(())
}

/// The names of packages with kernels of a line, as far as apt knows, the newest first.
fn known(line: &str) -> Result<Vec<String>> {
    let mut apt = Command::new("apt-cache");
    apt.args(["pkgnames", &format!("linux-image-{line}.")]);
    let output = apt.output().context("can't run apt-cache")?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = cloud(names.lines());
    ensure!(!names.is_empty(), "apt knows no kernel {line}");
    Ok(names)
}

/// Those for virtual machines, signed, the newest first. Some may only be named by others and not be there.
fn cloud<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let kernels = names.filter(|name| name.ends_with("-cloud-amd64"));
    let mut kernels: Vec<_> = kernels.map(str::to_owned).collect();
    kernels.sort_by_key(|name| numbers(name));
    kernels.reverse();
    kernels
}

/// The numbers in a name, by which a newer kernel is told from an older one.
fn numbers(name: &str) -> Vec<u64> {
    let parts = name.split(|character: char| !character.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// Downloads the first of these that is there, and unpacks it.
fn newest(names: &[String], directory: &Path) -> Result<()> {
    // Beside the place where it will be, so that a run that was interrupted leaves nothing that looks whole.
    let partial = directory.with_extension("partial");
    for name in names {
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| partial.display().to_string())?;
        }
        fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
        let mut download = Command::new("apt-get");
        download
            .current_dir(&partial)
            .args(["download", "--quiet", name]);
        let output = download.output().context("can't run apt-get")?;
        if !output.status.success() {
            continue;
        }
        eprintln!("kernels: {name}");
        let archive = fs::read_dir(&partial)?.next();
        let archive = archive.context("apt-get has downloaded nothing")??.path();
        run(Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&archive)
            .arg(&partial))?;
        fs::remove_file(&archive).with_context(|| archive.display().to_string())?;
        fs::rename(&partial, directory).with_context(|| directory.display().to_string())?;
        return Ok(());
    }
    bail!("none of these can be downloaded: {}", names.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signed_kernel_for_virtual_machines_comes_first() {
        let names = [
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-6.12.118+deb12-rt-amd64",
            "linux-image-6.12.107+deb12-cloud-amd64",
        ];
        assert_eq!(
            cloud(names.into_iter()),
            [
                "linux-image-6.12.117+deb12-cloud-amd64",
                "linux-image-6.12.107+deb12-cloud-amd64",
                "linux-image-6.12.99+deb12-cloud-amd64",
            ]
        );
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
        ];
        assert!(cloud(names.into_iter())[0].contains("-56-"));
    }
}
