//! `cargo xtask verify`: the harness' program `verify`.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::launch;

/// Has the kernel verify the programs.
pub(crate) fn verify() -> Result<()> {
    build::run(&mut launch::prepare("verify", Profile::Dev, &[])?)
}
