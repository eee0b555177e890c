//! What grows with the number of services, backends and flows, and what should not.
//!
//! `packet` times packets in the kernel program with few and with many of each; `agent` times the real agent: a
//! change, a list, a quiet second, its memory. A row's name ends in its number, and the rows that differ in it alone are
//! a line of the `chart`.

mod agent;
pub(super) mod chart;
mod packet;
mod planner;
mod process;
mod site;
pub(super) mod table;
mod terrain;

use super::report::{Found, Row};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    packet: packet::Effort,
    agent: agent::Effort,
}

impl Effort {
    /// For figures to be shown.
    pub const FULL: Self = Self {
        packet: packet::Effort::FULL,
        agent: agent::Effort::FULL,
    };
    /// To see whether something has moved.
    pub const QUICK: Self = Self {
        packet: packet::Effort::QUICK,
        agent: agent::Effort::QUICK,
    };
}

/// Measures every row whose name contains one of `only`; every row where that is empty.
pub fn measure(
    object: &[u8],
    effort: Effort,
    only: &[String],
    mut progress: impl FnMut(&str) + Send,
) -> Found {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    let mut found = packet::measure(object, effort.packet, &wanted, &mut progress);
    let more = agent::measure(effort.agent, &wanted, &mut progress);
    found.rows.extend(more.rows);
    found.faults.extend(more.faults);
    found.rows.retain(|row| wanted(&row.name));
    found
}

/// Whether a row is of this part.
pub(super) fn has(row: &Row) -> bool {
    row.name.starts_with("scale/")
}

/// What a row's name says apart from its number, and the number.
fn place(row: &Row) -> Option<(&str, u32)> {
    let (line, number) = row.name.rsplit_once('/')?;
    Some((line, number.parse().ok()?))
}

/// Rows that differ in their numbers alone, under what they have in common.
fn lines<'a>(rows: &[&'a Row]) -> Vec<(&'a str, Vec<&'a Row>)> {
    let mut lines: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in rows {
        let Some((name, _)) = place(row) else {
            continue;
        };
        match lines.iter_mut().find(|(line, _)| *line == name) {
            Some((_, line)) => line.push(row),
            None => lines.push((name, vec![row])),
        }
    }
    lines
}
