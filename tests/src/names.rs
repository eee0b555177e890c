//! Names of what a test makes: `lbt<pid>-<number>-<role>`, so that two runs never meet and a dead one's are known.
//!
//! `cargo xtask test` gives the tests that it starts, and whatever these start, its own process id in the variable
//! [`RUN`]. Then the names end in `-r<that id>`: when the tests are over it looks for them, and blames no other run.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};

use xtask::variables::RUN;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that this process has not given before.
#[must_use]
pub(crate) fn unique(role: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let run = env::var(RUN).ok().filter(|run| !run.is_empty());
    let run = run.map(|run| format!("-r{run}")).unwrap_or_default();
    format!("lbt{}-{number}-{role}{run}", std::process::id())
}

/// The process that made a thing of this name, where one of these gave it.
#[must_use]
pub(crate) fn maker(name: &str) -> Option<u32> {
    name.strip_prefix("lbt")?.split('-').next()?.parse().ok()
}

/// The process that answers for a thing of this name beside its maker.
#[must_use]
pub(crate) fn run(name: &str) -> Option<u32> {
    maker(name)?;
    name.rsplit_once("-r")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_maker() {
        assert_eq!(maker(&unique("client")), Some(std::process::id()));
        assert_eq!(maker("lbt12-3-x"), Some(12));
        assert_eq!(maker("lbtx-3"), None);
        assert_eq!(maker("other"), None);
    }

    #[test]
    fn a_name_tells_its_run() {
        assert_eq!(run("lbt12-3-client-r7"), Some(7));
        assert_eq!(run("lbt12-3-client"), None);
        assert_eq!(run("lbt12-3-re-router"), None);
        assert_eq!(run("other-r7"), None);
    }
}
