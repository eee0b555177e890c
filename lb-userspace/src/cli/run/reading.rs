//! Reading the configuration: the agent waits for it a limited time, and a stop does not wait for it at all.

use std::{path::Path, time::Duration};

use tokio::{sync::oneshot, time::timeout};

use crate::config::{self, Checked, Diagnostics};

/// How long a file may take to be read and checked.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Reads and checks a file. A read that does not end is left to itself.
pub(super) async fn configuration(path: &Path) -> Result<Checked, Diagnostics> {
    let (sender, answer) = oneshot::channel();
    let file = path.to_owned();
    // A thread of its own: one that waits for the writer of a FIFO or for a dead mount can't be ended, and would take one of
    // the runtime's for good.
    let thread = std::thread::Builder::new().name("configuration".to_owned());
    let spawned = thread.spawn(move || {
        // Nobody waits any more where it took too long.
        drop(sender.send(config::load(&file)));
    });
    if let Err(error) = spawned {
        let message = format!("can't be read: no thread: {error}");
        return Err(config::refusal(path, message, "free memory"));
    }
    match timeout(READ_WITHIN, answer).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(_)) => Err(config::refusal(
            path,
            "can't be read: the reader has failed".to_owned(),
            "give the path of a configuration",
        )),
        Err(_) => Err(config::refusal(
            path,
            format!(
                "can't be read: it has no end after {} s",
                READ_WITHIN.as_secs()
            ),
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
        let error = configuration(&path).await.unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(
            error.contains("no end after 10 s") && error.contains("mend: "),
            "{error}"
        );
    }
}
