//! The harness' object: its programs and maps by name, and the types of their rows.

use anyhow::{Context, Result};
use aya::maps::Map;
use aya::programs::Xdp;
use aya::{Ebpf, Pod};

use super::plan::{Arrived, Plan, Tally};

/// A row of a map, in a type of this crate's own.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Row<T>(pub(super) T);

// SAFETY: these are `repr(C)`, of integers, without padding.
unsafe impl Pod for Row<Plan> {}
// SAFETY: as above.
unsafe impl Pod for Row<Tally> {}
// SAFETY: as above.
unsafe impl Pod for Row<Arrived> {}

const _: () = assert!(size_of::<Plan>() == 2 * 112 + 24);

/// A map of the object.
///
/// # Errors
/// Where it has none of that name.
pub(super) fn map<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    let map = object.map_mut(name);
    map.with_context(|| format!("no map {name} in the harness' object"))
}

/// A program of the object.
///
/// # Errors
/// Where it has none of that name.
pub(super) fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = object.program_mut(name);
    let program = program.with_context(|| format!("no program {name} in the harness' object"))?;
    Ok(program.try_into()?)
}
