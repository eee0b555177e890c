//! The directory of an instance on the bpffs: what is pinned where, and who may touch it.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, statfs};

use super::{layout::Shape, syscall};

/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`.
const BPF_FS: i64 = 0xcafe_4a11;
/// A link's pin is named for its interface.
const LINK_PREFIX: &str = "link-";

/// The pins of one instance, locked against others.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    /// Keeps the lock.
    _lock: File,
}

/// Why the pins can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The directory is not there.
    #[error(
        "{path} does not exist, and the data plane's pins go there\n   mend: `mkdir -p {path} && mount -t bpf bpf \
         {path}`, or set `pin_root` in [agent]",
        path = .0.display()
    )]
    Missing(PathBuf),
    /// It is on another kind of file system.
    #[error(
        "{path} is not a bpffs, and only there can the data plane outlive the agent\n   mend: `mount -t bpf bpf \
         {path}`, or set `pin_root` in [agent]",
        path = .0.display()
    )]
    NotBpffs(PathBuf),
    /// Another process has the lock.
    #[error(
        "{holder} uses {path}\n   mend: stop it first; two agents on one machine need an `instance` each",
        holder = .holder.as_ref().map_or_else(|| "another process".to_owned(), Holder::to_string),
        path = .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as that can be told.
        holder: Option<Holder>,
    },
    /// The system refused something.
    #[error("can't {action} {path}: {cause}{hint}", path = .path.display(), hint = hint(.cause))]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
}

/// A process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "process {} ({})", self.pid, self.name)
    }
}

fn hint(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::PermissionDenied {
        "\n   mend: run as root, or as the user that owns the directory"
    } else {
        ""
    }
}

/// Directory of an instance.
pub(super) fn directory(pin_root: &Path, instance: &str) -> PathBuf {
    pin_root.join("lb").join(instance)
}

impl Pins {
    /// Makes the directory where it is not there, and locks it.
    pub(super) fn create(pin_root: &Path, instance: &str) -> Result<Self, PinsError> {
        check_bpffs(pin_root)?;
        let directory = directory(pin_root, instance);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        made.map_err(|cause| system("make", &directory, cause))?;
        Self::lock(directory)
    }

    /// Locks the directory; `None` where there is none.
    pub(super) fn open(pin_root: &Path, instance: &str) -> Result<Option<Self>, PinsError> {
        let directory = directory(pin_root, instance);
        if !directory
            .try_exists()
            .map_err(|cause| system("look at", &directory, cause))?
        {
            return Ok(None);
        }
        Self::lock(directory).map(Some)
    }

    fn lock(directory: PathBuf) -> Result<Self, PinsError> {
        let lock = File::open(&directory).map_err(|cause| system("open", &directory, cause))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                directory,
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = holder(&lock);
                Err(PinsError::InUse {
                    path: directory,
                    holder,
                })
            }
            Err(error) => Err(system("lock", &directory, error.into())),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the pin of a map is.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Which of the maps are pinned.
    pub(super) fn pinned<'a>(&self, shapes: &'a [Shape]) -> Result<Vec<&'a Shape>, PinsError> {
        let names = self.names()?;
        Ok(shapes
            .iter()
            .filter(|shape| names.iter().any(|name| name == shape.name))
            .collect())
    }

    /// Names of the interfaces that have a pinned link.
    pub(super) fn links(&self) -> Result<Vec<String>, PinsError> {
        let names = self.names()?;
        Ok(names
            .iter()
            .filter_map(|name| Some(name.strip_prefix(LINK_PREFIX)?.replace(':', ".")))
            .collect())
    }

    /// Pins a link.
    pub(super) fn pin_link(&self, interface: &str, link: &OwnedFd) -> Result<(), PinsError> {
        let path = self.link_path(interface);
        syscall::pin(link.as_fd(), &path).map_err(|cause| system("pin", &path, cause))
    }

    /// Opens a pinned link; `None` where there is none.
    pub(super) fn link(&self, interface: &str) -> Result<Option<OwnedFd>, PinsError> {
        let path = self.link_path(interface);
        match syscall::get_pin(&path) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(system("open", &path, cause)),
        }
    }

    /// Removes the pin of a link.
    pub(super) fn unpin_link(&self, interface: &str) -> Result<(), PinsError> {
        Self::remove(&self.link_path(interface))
    }

    /// Removes the pins of the maps.
    pub(super) fn unpin_maps(&self) -> Result<(), PinsError> {
        let names = self.names()?;
        names
            .iter()
            .filter(|name| !name.starts_with(LINK_PREFIX))
            .try_for_each(|name| Self::remove(&self.map(name)))
    }

    /// Removes the directory, which must be empty, and the one above it where no other instance uses it.
    pub(super) fn remove_directory(&self) -> Result<(), PinsError> {
        fs::remove_dir(&self.directory)
            .map_err(|cause| system("remove", &self.directory, cause))?;
        let above = self.directory.parent().unwrap_or(&self.directory);
        match fs::remove_dir(above) {
            Err(cause) if cause.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(system("remove", above, cause))
            }
            _ => Ok(()),
        }
    }

    /// A bpffs reserves names with a dot, and interfaces such as `eth0.100` have one; none has a colon.
    fn link_path(&self, interface: &str) -> PathBuf {
        self.directory
            .join(format!("{LINK_PREFIX}{}", interface.replace('.', ":")))
    }

    fn names(&self) -> Result<Vec<String>, PinsError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.directory)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort_unstable();
            Ok(names)
        };
        read().map_err(|cause| system("read", &self.directory, cause))
    }

    fn remove(path: &Path) -> Result<(), PinsError> {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(system("remove", path, cause))
            }
            _ => Ok(()),
        }
    }
}

fn system(action: &'static str, path: &Path, cause: io::Error) -> PinsError {
    PinsError::System {
        action,
        path: path.to_owned(),
        cause,
    }
}

fn check_bpffs(pin_root: &Path) -> Result<(), PinsError> {
    match statfs(pin_root) {
        Ok(found) if found.f_type == BPF_FS => Ok(()),
        Ok(_) => Err(PinsError::NotBpffs(pin_root.to_owned())),
        Err(rustix::io::Errno::NOENT) => Err(PinsError::Missing(pin_root.to_owned())),
        Err(error) => Err(system("look at", pin_root, error.into())),
    }
}

/// Finds out who has the lock of a file, from `/proc/locks`.
fn holder(locked: &File) -> Option<Holder> {
    let inode = locked.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| lock_holder(line, inode))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder {
        pid,
        name: name.trim().to_owned(),
    })
}

/// The process that a line of `/proc/locks` names, where the line is of a lock by flock(2) on that inode:
/// `1: FLOCK  ADVISORY  WRITE 4242 00:1d:77 0 EOF`. The device is left out: its numbers in this file and in stat(2) are
/// not the same everywhere.
fn lock_holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace();
    (fields.nth(1)? == "FLOCK").then_some(())?;
    let pid = fields.nth(2)?.parse().ok()?;
    let (_, number) = fields.next()?.rsplit_once(':')?;
    (number.parse() == Ok(inode)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_its_holder() {
        let line = "3: FLOCK  ADVISORY  WRITE 4242 00:1d:77 0 EOF";
        assert_eq!(lock_holder(line, 77), Some(4242));
        assert_eq!(lock_holder(line, 78), None);
        assert_eq!(
            lock_holder("3: POSIX  ADVISORY  WRITE 4242 00:1d:77 0 EOF", 77),
            None
        );
        assert_eq!(
            lock_holder("3: -> FLOCK  ADVISORY  WRITE 4243 00:1d:77 0 EOF", 77),
            None
        );
        assert_eq!(lock_holder("", 77), None);
    }

    #[test]
    fn an_ordinary_directory_is_not_a_bpffs() {
        let error = check_bpffs(Path::new("/tmp")).unwrap_err();
        assert!(
            error.to_string().contains("mount -t bpf bpf /tmp"),
            "{error}"
        );
        let error = check_bpffs(Path::new("/no/such/place")).unwrap_err();
        assert!(
            error.to_string().contains("mkdir -p /no/such/place"),
            "{error}"
        );
    }
}
