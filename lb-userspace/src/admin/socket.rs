//! The Unix socket: made so that nobody meets it half made, and never taken from a living agent.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

/// For the owner and the group.
const MODE: u32 = 0o660;
/// How often it is looked whether the socket is still there.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The socket can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An agent listens there.
    #[error(
        "process {pid} answers at {path}: another agent runs\n   help: stop it, or give this one an `instance` or \
         a `socket` of its own"
    )]
    Living {
        /// The socket.
        path: PathBuf,
        /// Who listens; 0 where that is in another PID namespace.
        pid: i32,
    },
    /// The path is taken by something that this agent did not make.
    #[error("{0} is there and is not a socket\n   help: remove it, or change `socket` in [agent]")]
    Foreign(PathBuf),
    /// The directory is missing, not writable, or the like.
    #[error("the socket {path} can't be made: {cause}\n   help: {help}")]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// What to do.
        help: &'static str,
    },
}

/// A listening socket; its file goes with the value.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
    /// Device and inode of the file, by which it is told from another's. A file that is gone may have given its inode to
    /// a new one.
    file: Option<(u64, u64)>,
}

impl Socket {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the place of this one, whose file is gone.
    pub(super) fn replace_by(&mut self, made: Self) {
        self.file = None;
        *self = made;
    }

    /// Returns when the file is no longer there, or is another's.
    pub(super) async fn is_lost(&self) {
        while self.is_there() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_there(&self) -> bool {
        place_of(&self.path).is_ok_and(|file| self.file == Some(file))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // One that can't be removed will be found to be dead; another's is not ours to remove.
        if self.is_there() {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes the socket at `path`, and its directory where that is missing.
///
/// 1. A socket that somebody answers on belongs to a living agent and stays; one that nobody does is what a killed
///    agent left, and is replaced.
/// 2. The socket is made beside its place, gets its mode, and is then moved there: it is never seen without its mode,
///    and the old one is replaced in one step.
///
/// # Errors
/// See [`SocketError`].
pub fn bind(path: &Path) -> Result<Socket, SocketError> {
    let failed = |cause: io::Error| SocketError::Failed {
        path: path.to_owned(),
        help: help(&cause),
        cause,
    };

    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::Foreign(path.to_owned()));
        }
        Ok(_) => {
            if let Some(pid) = listener(path) {
                let path = path.to_owned();
                return Err(SocketError::Living { path, pid });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }

    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    // Short, because the whole path may have 107 bytes and the socket's own may use them up.
    let beside = directory.join(format!(".{:x}", std::process::id()));
    let made = place(&beside, path);
    if made.is_err() {
        drop(fs::remove_file(&beside));
    }
    let (listener, file) = made.map_err(failed)?;
    Ok(Socket {
        listener: Some(listener),
        path: path.to_owned(),
        file: Some(file),
    })
}

fn place(beside: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(beside)?;
    fs::set_permissions(beside, fs::Permissions::from_mode(MODE))?;
    let file = place_of(beside)?;
    fs::rename(beside, path)?;
    Ok((listener, file))
}

fn place_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The process that listens at a socket, 0 where it is not known; `None` where nobody does. Never waits: the queue of an agent that
/// hangs may be full.
pub(super) fn listener(path: &Path) -> Option<i32> {
    let connect = || -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    match connect() {
        Ok(stream) => Some(peer(&stream)),
        // Its queue is full, or it is not for this user.
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Some(0),
        Err(_) => None,
    }
}

/// The process that listens on the other end.
fn peer(stream: &OwnedFd) -> i32 {
    let credentials = rustix::net::sockopt::socket_peercred(stream);
    credentials.map_or(0, |credentials| credentials.pid.as_raw_pid())
}

fn help(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root, or change `socket` in [agent] to a directory that is writable"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "change `socket` in [agent] to a directory that is writable"
        }
        _ => "change `socket` in [agent]",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_whose_file_is_gone_does_not_take_its_successors_along() {
        let directory = std::env::temp_dir().join(format!("lb-socket-{}", std::process::id()));
        let path = directory.join("lb.sock");
        let mut socket = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        drop(socket.listener.take());
        let made = bind(&path).unwrap();
        // Some file systems give the inode of a file that is gone to the next one.
        socket.file = made.file;
        socket.replace_by(made);
        assert!(socket.is_there());
        drop(socket);
        assert!(!path.exists(), "its own file goes with it");
        fs::remove_dir(&directory).unwrap();
    }
}
