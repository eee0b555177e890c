//! The Unix socket: made so that nobody meets it half made, and never taken from a living agent.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// For the owner and the group.
const MODE: u32 = 0o660;

/// The socket can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An agent listens there.
    #[error(
        "process {pid} answers at {path}: another agent runs\n   mend: stop it, or give this one an `instance` or \
         a `socket` of its own"
    )]
    Living {
        /// The socket.
        path: PathBuf,
        /// Who listens; 0 where that is in another PID namespace.
        pid: i32,
    },
    /// The path is taken by something that this agent did not make.
    #[error("{0} is there and is not a socket\n   mend: remove it, or change `socket` in [agent]")]
    Foreign(PathBuf),
    /// The directory is missing, not writable, or the like.
    #[error("the socket {path} can't be made: {cause}\n   mend: {mend}")]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
        /// What to do.
        mend: &'static str,
    },
}

/// A listening socket; its file goes with the value.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
}

impl Socket {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that is gone is what is wanted, and one that can't be removed will be found to be dead.
        drop(fs::remove_file(&self.path));
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
        mend: mend(&cause),
        cause,
    };

    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::Foreign(path.to_owned()));
        }
        Ok(_) => {
            if let Ok(stream) = UnixStream::connect(path) {
                let path = path.to_owned();
                return Err(SocketError::Living {
                    path,
                    pid: peer(&stream),
                });
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
    made.map(|listener| Socket {
        listener: Some(listener),
        path: path.to_owned(),
    })
    .map_err(failed)
}

fn place(beside: &Path, path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(beside)?;
    fs::set_permissions(beside, fs::Permissions::from_mode(MODE))?;
    fs::rename(beside, path)?;
    Ok(listener)
}

/// The process that listens on the other end.
fn peer(stream: &UnixStream) -> i32 {
    let credentials = rustix::net::sockopt::socket_peercred(stream);
    credentials.map_or(0, |credentials| credentials.pid.as_raw_pid())
}

fn mend(cause: &io::Error) -> &'static str {
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
