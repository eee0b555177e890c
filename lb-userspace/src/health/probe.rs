//! What every kind of check has in common: a deadline, and words for what went wrong.

use std::{fmt, io, net::SocketAddr, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{http, tcp};
use crate::model::{Check, CheckKind};

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The backend did not answer as it should.
    Backend(String),
    /// The backend did not answer in time.
    Timeout(String),
    /// This host lacked something, so the check says nothing about the backend.
    Local(String),
}

/// Runs one check of `target` to its end.
///
/// # Errors
/// Why it did not pass, in words; at the latest when its timeout is over.
pub(super) async fn run(check: &Check, target: SocketAddr) -> Result<(), Failure> {
    let deadline = Deadline::after(check.timeout);
    match &check.kind {
        CheckKind::Tcp => tcp::check(target, &deadline).await,
        CheckKind::Http { path, host, expect } => {
            http::check(target, &deadline, path, host.as_deref(), expect).await
        }
    }
}

/// When a check has failed whatever it is doing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self {
            at: Instant::now() + timeout,
            timeout,
        }
    }

    /// Waits for `work`, at most until the deadline; `doing` says in words what it was, if it comes to that.
    pub(super) async fn limit<T, D: fmt::Display>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        doing: impl FnOnce() -> D,
    ) -> Result<T, Failure> {
        match timeout_at(self.at, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Timeout(format!(
                "timed out after {} while {}",
                words(self.timeout),
                doing()
            ))),
        }
    }
}

/// An error of a socket in words, without the kernel's number.
pub(super) fn failure(error: &io::Error) -> Failure {
    use rustix::io::Errno;

    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let lacking = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
    ];
    let words = match errno {
        Some(Errno::CONNREFUSED) => "connection refused",
        Some(Errno::CONNRESET) => "connection reset",
        Some(Errno::PIPE) => "connection closed",
        Some(Errno::HOSTUNREACH) => "host unreachable",
        Some(Errno::NETUNREACH) => "network unreachable: no route",
        Some(Errno::TIMEDOUT) => return Failure::Timeout("timed out".to_owned()),
        Some(Errno::ACCESS | Errno::PERM) => "not permitted: a firewall of this host refuses it",
        Some(errno) if lacking.contains(&errno) => return Failure::Local(error.to_string()),
        _ => return Failure::Backend(error.to_string()),
    };
    Failure::Backend(words.to_owned())
}

/// `500 ms`, `2 s`.
fn words(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) {
        format!("{} s", millis / 1000)
    } else {
        format!("{millis} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_host_lacks_is_not_held_against_the_backend() {
        let local = |errno: rustix::io::Errno| matches!(failure(&errno.into()), Failure::Local(_));
        assert!(local(rustix::io::Errno::MFILE));
        assert!(local(rustix::io::Errno::ADDRNOTAVAIL));
        assert!(!local(rustix::io::Errno::CONNREFUSED));
        assert!(!local(rustix::io::Errno::NETUNREACH));
        let timeout = failure(&rustix::io::Errno::TIMEDOUT.into());
        assert_eq!(timeout, Failure::Timeout("timed out".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_names_what_was_being_done() {
        let deadline = Deadline::after(Duration::from_millis(1500));
        let never = deadline
            .limit(
                std::future::pending::<Result<(), Failure>>(),
                || "waiting for Godot",
            )
            .await;
        assert_eq!(
            never,
            Err(Failure::Timeout(
                "timed out after 1500 ms while waiting for Godot".into()
            ))
        );
        assert_eq!(words(Duration::from_secs(2)), "2 s");
    }
}
