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
    pin_root: PathBuf,
    directory: PathBuf,
    /// Keeps the lock.
    lock: File,
}

/// Why the pins can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The directory is not there.
    #[error(
        "{path} does not exist, and the data plane's pins go there\n   help: `mkdir -p {path} && mount -t bpf bpf \
         {path}`, or set `pin_root` in [agent]",
        path = .0.display()
    )]
    Missing(PathBuf),
    /// It is on another kind of file system.
    #[error(
        "{path} is not a bpffs, and only there can the data plane outlive the agent\n   help: {help}",
        path = .path.display()
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
        /// What to do.
        help: String,
    },
    /// Another process has the lock.
    #[error(
        "{holder} uses {path}\n   help: stop it first; two agents on one machine need an `instance` each",
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
        "\n   help: run as root, or as the user that owns the directory"
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
        let directory = directory(pin_root, instance);
        make(pin_root, &directory)?;
        Self::lock(pin_root, directory)
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
        Self::lock(pin_root, directory).map(Some)
    }

    /// Makes the directory again where somebody has removed it, and locks that one.
    pub(super) fn renew(&mut self) -> Result<(), PinsError> {
        make(&self.pin_root, &self.directory)?;
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let look = |found: io::Result<fs::Metadata>| {
            found
                .map(place)
                .map_err(|cause| system("look at", &self.directory, cause))
        };
        if look(fs::metadata(&self.directory))? != look(self.lock.metadata())? {
            self.lock = Self::lock(&self.pin_root, self.directory.clone())?.lock;
        }
        Ok(())
    }

    fn lock(pin_root: &Path, directory: PathBuf) -> Result<Self, PinsError> {
        let lock = File::open(&directory).map_err(|cause| system("open", &directory, cause))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                pin_root: pin_root.to_owned(),
                directory,
                lock,
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

    /// Pins a map.
    pub(super) fn pin_map(&self, name: &str, map: &OwnedFd) -> Result<(), PinsError> {
        let path = self.map(name);
        syscall::pin(map.as_fd(), &path).map_err(|cause| system("pin", &path, cause))
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
        let above = self.directory.parent().unwrap_or(&self.directory);
        for directory in [self.directory.as_path(), above] {
            match fs::remove_dir(directory) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause)
                    if directory == above && cause.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                done => done.map_err(|cause| system("remove", directory, cause))?,
            }
        }
        Ok(())
    }

    /// The name of a link's pin. A bpffs reserves names with a dot, and interfaces such as `eth0.100` have one; none has
    /// a colon.
    pub(super) fn link_name(interface: &str) -> String {
        format!("{LINK_PREFIX}{}", interface.replace('.', ":"))
    }

    fn link_path(&self, interface: &str) -> PathBuf {
        self.directory.join(Self::link_name(interface))
    }

    /// Names of all pins; none where the directory is gone.
    pub(super) fn names(&self) -> Result<Vec<String>, PinsError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            let entries = match fs::read_dir(&self.directory) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(names),
                entries => entries?,
            };
            for entry in entries {
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

/// Makes the directory of an instance where it is not there.
fn make(pin_root: &Path, directory: &Path) -> Result<(), PinsError> {
    check_bpffs(pin_root)?;
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(|cause| system("make", directory, cause))
}

fn check_bpffs(pin_root: &Path) -> Result<(), PinsError> {
    match statfs(pin_root) {
        Ok(found) if found.f_type == BPF_FS => Ok(()),
        Ok(_) => Err(PinsError::NotBpffs {
            path: pin_root.to_owned(),
            help: mount_advice(pin_root),
        }),
        Err(rustix::io::Errno::NOENT) => Err(PinsError::Missing(pin_root.to_owned())),
        Err(error) => Err(system("look at", pin_root, error.into())),
    }
}

/// How to come to a bpffs. A mount hides what a directory holds, so only an empty one is mounted on.
fn mount_advice(path: &Path) -> String {
    let usual = Path::new("/sys/fs/bpf");
    let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if path == usual || empty {
        return format!("`mount -t bpf bpf {}`", path.display());
    }
    let usual_is_one = statfs(usual).is_ok_and(|found| found.f_type == BPF_FS);
    let mount = if usual_is_one {
        String::new()
    } else {
        ", after `mount -t bpf bpf /sys/fs/bpf`".to_owned()
    };
    format!(
        "remove `pin_root` from [agent], which makes it /sys/fs/bpf{mount}; or `mkdir -p /run/bpf && mount -t bpf bpf \
         /run/bpf`, and set `pin_root = \"/run/bpf\"`"
    )
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
        let words = |path: &Path| check_bpffs(path).unwrap_err().to_string();
        let full = words(Path::new("/proc/self"));
        assert!(
            full.contains("set `pin_root = \"/run/bpf\"`")
                && full.contains("mount -t bpf bpf /run/bpf"),
            "{full}"
        );
        assert!(
            !full.contains("bpf /proc/self"),
            "it would hide what is there: {full}"
        );
        let empty = std::env::temp_dir().join(format!("lb-pins-{}", std::process::id()));
        fs::create_dir(&empty).unwrap();
        let said = words(&empty);
        fs::remove_dir(&empty).unwrap();
        assert!(
            said.contains(&format!("mount -t bpf bpf {}`", empty.display())),
            "{said}"
        );
        let error = check_bpffs(Path::new("/no/such/place")).unwrap_err();
        assert!(
            error.to_string().contains("mkdir -p /no/such/place"),
            "{error}"
        );
    }
}
