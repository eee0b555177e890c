//! Who may use the machine: tests that measure time run alone, the others beside each other.
//!
//! The suites run on machines of two cores. A test that waits for a health check leaves them idle; one that sends
//! 10,000 connections, or asserts how long something took, must not share them.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// The right to use the machine, given back when dropped.
#[must_use = "dropped at once it is given back at once"]
pub struct Turn {
    _held: Held,
}

enum Held {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

/// Waits until nobody needs the machine alone.
pub fn shared() -> Turn {
    let guard = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    Turn {
        _held: Held::Shared { _guard: guard },
    }
}

/// Waits until nobody else uses the machine, and keeps it.
pub fn alone() -> Turn {
    let guard = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    Turn {
        _held: Held::Alone { _guard: guard },
    }
}
