//! Reading the configuration: it is waited for a limited time, and a stop of the agent does not wait for it at all.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::config::{self, Checked, Diagnostics};

/// How long a file may take to be read and checked.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Reads and checks a file. A read that does not end is left to itself.
pub(super) async fn configuration(path: &Path) -> Result<Checked, Diagnostics> {
    in_time(path, config::load)
        .await
        .unwrap_or_else(|Unread { message, help }| Err(config::refusal(path, message, help)))
}

/// The socket of the agent that runs a file; the error says why it can't be read.
pub(super) async fn socket(path: &Path) -> anyhow::Result<PathBuf> {
    let found = match in_time(path, config::socket_of).await {
        Ok(found) => found,
        Err(Unread { message, help }) => Err(config::refusal(path, message, help)),
    };
    found.map_err(|findings| anyhow::anyhow!(findings.to_string()))
}

/// Why nothing came of a read.
struct Unread {
    message: String,
    help: &'static str,
}

async fn in_time<T: Send + 'static>(
    path: &Path,
    read: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, Unread> {
    let (sender, answer) = oneshot::channel();
    let file = path.to_owned();
    // A thread of its own: one that waits for the writer of a FIFO or for a dead mount can't be ended, and would take one of
    // the runtime's for good.
    let thread = std::thread::Builder::new().name("configuration".to_owned());
    let spawned = thread.spawn(move || {
        // Nobody waits any more where it took too long.
        drop(sender.send(read(&file)));
    });
    let unread = |why: String, help| Unread {
        message: format!("can't be read: {why}"),
        help,
    };
    if let Err(error) = spawned {
        return Err(unread(format!("no thread: {error}"), "free memory"));
    }
    match timeout(READ_WITHIN, answer).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(_)) => Err(unread(
            "the reader has failed".to_owned(),
            "give the path of a configuration",
        )),
        Err(_) => Err(unread(
            format!("it has no end after {} s", READ_WITHIN.as_secs()),
            "give the path of an ordinary file on a file system that answers",
        )),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_without_an_end_is_given_up() {
        let path = std::env::temp_dir().join(format!("lb-fifo-{}", std::process::id()));
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let errors = [
            configuration(&path).await.unwrap_err().to_string(),
            socket(&path).await.unwrap_err().to_string(),
        ];
        std::fs::remove_file(&path).unwrap();
        for error in errors {
            assert!(
                error.contains("no end after 10 s") && error.contains("help: "),
                "{error}"
            );
        }
    }
}
