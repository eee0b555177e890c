//! How the eBPF object is built, and how the harness is told what to work with.
//!
//! [`recipe`] is the one place in the tree that knows; the build scripts of the agent and of the tests call it, and so do the
//! commands of `cargo xtask`. [`toolchain`] finds what the recipe works with; [`variables`] are between the
//! commands and the harness.

pub mod programs;
pub mod recipe;
pub mod toolchain;
pub mod variables;

use std::path::Path;

/// The root of the checkout.
#[must_use]
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
