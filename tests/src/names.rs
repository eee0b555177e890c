//! Names of what a test makes: `lbt<pid>-<number>-<role>`, so that two runs never meet and a dead one's are known.

use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that this process has not given before.
#[must_use]
pub(crate) fn unique(role: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("lbt{}-{number}-{role}", std::process::id())
}

/// The process that made a thing of this name, where one of these gave it.
#[must_use]
pub(crate) fn maker(name: &str) -> Option<u32> {
    name.strip_prefix("lbt")?.split('-').next()?.parse().ok()
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
}
