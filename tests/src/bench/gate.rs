//! Whether a report is so much worse than an earlier one that a change must not pass.
//!
//! Made for machines that others use too. What disturbs a run makes it slower and never faster, so a figure is made of
//! the best of a row's runs, and how much that may be a stroke of luck is seen from the next best. What seems worse is
//! measured again, and the new runs join the old ones: noise goes with more runs, and what the program costs does not.
//!
//! Nanoseconds are compared as multiples of the calibration, so that the earlier report may come from another machine;
//! a row with a peer is compared by its ratio to it. What the calibration can't tell is how long memory takes today: a
//! row of so many flows may cost as much more as one line of so many takes longer.

use std::collections::BTreeSet;
use std::fmt;

use super::report::{Report, Row, Unit};
use super::rows::{CALIBRATION, is_of_the_machine, line_row};

/// How often a row has to be too slow before that is believed.
pub const ROUNDS: usize = 6;
/// How many times worse a figure may get.
const LIMIT: f64 = 1.25;
/// The same for [`FROM_MEMORY`].
const LIMIT_FROM_MEMORY: f64 = 1.5;
/// Rows that wait for memory more than they compute, by parts of their names. What memory gives depends on the
/// neighbours of a shared machine for minutes at a time, and all rounds may fall into a bad one.
const FROM_MEMORY: [&str; 4] = ["/100k", "/500k", "new/", "flood/"];
/// How many times the distance to the next best run may be luck.
const DOUBTS: f64 = 2.0;
/// The floor and the figure are differences of whole nanoseconds, for rounds of eight packets, by programs whose code lies
/// elsewhere each time.
const RESOLUTION_NS: f64 = 1.0;

/// What a report comes to beside an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Rows that are worse than they may be, the doubt left aside.
    pub worse: Vec<Worse>,
    /// Rows of the earlier report that have no figure now.
    pub missing: Vec<String>,
    /// Rows that the earlier report does not have, which is no fault.
    pub new: Vec<String>,
    /// How many rows were compared.
    pub compared: usize,
}

/// A row that seems to be too slow.
#[derive(Clone, Debug)]
pub struct Worse {
    /// Its name.
    pub name: String,
    /// The earlier figure, as this machine would have had it.
    pub before: f64,
    /// The figure now.
    pub now: f64,
    /// How many times worse it may be.
    pub limit: f64,
    /// The difference that luck alone explains.
    pub doubt: f64,
    /// The row of the machine that `before` is raised by.
    line: Option<String>,
    cost: bool,
}

impl Judgement {
    /// Judges a report. `measured` says of a row's name whether it should have a figure now.
    ///
    /// # Errors
    /// Where one has nanoseconds and no calibration to compare them by.
    pub fn of(
        before: &Report,
        now: &Report,
        measured: impl Fn(&str) -> bool,
    ) -> Result<Self, Uncalibrated> {
        let mut judgement = Self::default();
        for row in before.rows.iter().filter(|row| measured(&row.name)) {
            if now.row(&row.name).and_then(Best::of).is_none() {
                judgement.missing.push(row.name.clone());
            }
        }
        let slower = slower(before, now);
        for row in now.rows.iter().filter(|row| !is_of_the_machine(&row.name)) {
            let Some((best, earlier)) = Best::of(row).zip(before.row(&row.name).and_then(Best::of))
            else {
                if before.row(&row.name).is_none() {
                    judgement.new.push(row.name.clone());
                }
                continue;
            };
            let mut line = None;
            let earlier = if row.unit == Unit::Nanoseconds && row.peer.is_none() {
                let slower = slower.ok_or(Uncalibrated)?;
                line = Line::of(&row.name, before, now, slower);
                earlier.times(slower).plus(line.as_ref())
            } else {
                earlier
            };
            judgement.compared += 1;
            let worse = Worse::new(row, &earlier, &best, line.map(|line| line.name));
            judgement
                .worse
                .extend(Some(worse).filter(Worse::is_over_the_limit));
        }
        Ok(judgement)
    }

    /// Names of the rows that have to be measured again: all that seem worse, those without a figure, and what the
    /// worse were excused by.
    #[must_use]
    pub fn suspects(&self) -> Vec<String> {
        let worse = self.worse.iter().map(|worse| &worse.name);
        let lines = self.worse.iter().filter_map(|worse| worse.line.as_ref());
        let lines: BTreeSet<_> = lines.collect();
        worse.chain(&self.missing).chain(lines).cloned().collect()
    }

    /// Why the change must not pass, a line each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let worse = self.worse.iter().filter(|worse| worse.is_beyond_doubt());
        let worse = worse.map(ToString::to_string);
        let missing = self.missing.iter();
        let missing = missing.map(|name| format!("{name}: has no figure any more"));
        worse.chain(missing).collect()
    }
}

/// Nanoseconds of two machines can't be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncalibrated;

impl std::error::Error for Uncalibrated {}

impl fmt::Display for Uncalibrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "one of the reports has no row {CALIBRATION}, by which nanoseconds are compared"
        )
    }
}

impl Worse {
    fn new(row: &Row, before: &Best, now: &Best, line: Option<String>) -> Self {
        let resolution = if row.unit == Unit::Nanoseconds && row.peer.is_none() {
            RESOLUTION_NS
        } else {
            0.0
        };
        let from_memory = FROM_MEMORY.iter().any(|part| row.name.contains(part));
        Self {
            name: row.name.clone(),
            before: before.figure,
            now: now.figure,
            limit: if from_memory {
                LIMIT_FROM_MEMORY
            } else {
                LIMIT
            },
            doubt: DOUBTS * before.doubt.hypot(now.doubt) + resolution,
            line,
            cost: row.unit.is_a_cost(),
        }
    }

    /// Products and not quotients: what costs nothing may not begin to cost something.
    fn is_over_the_limit(&self) -> bool {
        let Self {
            before, now, limit, ..
        } = self;
        if self.cost {
            *now > limit * before
        } else {
            limit * now < *before
        }
    }

    fn is_beyond_doubt(&self) -> bool {
        (self.now - self.before).abs() > self.doubt
    }
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            before,
            now,
            limit,
            doubt,
            ..
        } = self;
        write!(
            f,
            "{name}: {now:.3} where {before:.3} was (+- {doubt:.3}), more than {limit} times worse"
        )
    }
}

/// How much slower this machine is than that of the earlier report.
fn slower(before: &Report, now: &Report) -> Option<f64> {
    let best = |report: &Report| {
        let best = Best::of(report.row(CALIBRATION)?)?.figure;
        (best > 0.0).then_some(best)
    };
    Some(best(now)? / best(before)?)
}

/// A line of memory that takes longer now than it would have where the earlier report was made.
struct Line {
    /// The row that measures it.
    name: String,
    /// How much longer.
    longer: Best,
}

impl Line {
    /// What a row's packets wait for, where both reports say it and it takes longer now.
    fn of(row: &str, before: &Report, now: &Report, slower: f64) -> Option<Self> {
        let name = line_row(row)?;
        let best = |report: &Report| report.row(&name).and_then(Best::of);
        let (before, now) = (best(before)?.times(slower), best(now)?);
        let longer = Best {
            figure: now.figure - before.figure,
            doubt: now.doubt.hypot(before.doubt),
        };
        (longer.figure > 0.0).then_some(Self { name, longer })
    }
}

/// The figure that a row's best runs give.
#[derive(Clone, Copy, Debug)]
struct Best {
    figure: f64,
    /// How far it may be from what still more runs would give.
    doubt: f64,
}

impl Best {
    /// What the program under test took, less the floor, for one of the peer. Best against best, and not the best of
    /// the runs' ratios: a peer that was disturbed would make a run look good.
    fn of(row: &Row) -> Option<Self> {
        let cost = row.unit.is_a_cost();
        let value = Self::of_values(row.runs.iter().map(|run| run.value), cost)?;
        let floor = Self::of_values(row.runs.iter().filter_map(|run| run.floor), true);
        let net = floor.map_or(value, |floor| Self {
            figure: value.figure - floor.figure,
            doubt: value.doubt.hypot(floor.doubt),
        });
        let peer = Self::of_values(row.runs.iter().filter_map(|run| run.peer), cost);
        Some(peer.map_or(net, |peer| {
            let figure = net.figure / peer.figure;
            let relative = (net.doubt / net.figure).hypot(peer.doubt / peer.figure);
            let doubt = figure.abs() * relative;
            Self { figure, doubt }
        }))
        .filter(|best| best.figure.is_finite() && best.doubt.is_finite())
    }

    fn of_values(values: impl Iterator<Item = f64>, cost: bool) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(|a, b| if cost { a.total_cmp(b) } else { b.total_cmp(a) });
        let best = *sorted.first()?;
        // A single run says nothing about luck.
        let next = sorted.get(1).copied().unwrap_or(2.0 * best);
        Some(Self {
            figure: best,
            doubt: (next - best).abs(),
        })
    }

    fn plus(self, line: Option<&Line>) -> Self {
        line.map_or(self, |Line { longer, .. }| Self {
            figure: self.figure + longer.figure,
            doubt: self.doubt.hypot(longer.doubt),
        })
    }

    fn times(self, factor: f64) -> Self {
        Self {
            figure: self.figure * factor,
            doubt: self.doubt * factor,
        }
    }
}

#[cfg(test)]
#[path = "gate/tests.rs"]
mod tests;
