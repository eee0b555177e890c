//! A report beside an earlier one: what has moved, and whether that is more than noise. Whether it is too much is for
//! [`super::gate`] to say.

use super::report::{Report, Row, Unit};
use super::rows::{CALIBRATION, is_of_the_machine};
use crate::screen::{Colour, Screen};

/// How many standard errors the difference of two figures has to have before it counts.
const ERRORS: f64 = 3.0;
/// The kernel gives whole nanoseconds for a round of eight packets; two runs may differ by as much from nothing.
const RESOLUTION_NS: f64 = 0.25;

/// A row that both reports have.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The earlier figure, as this machine would have had it.
    pub before: f64,
    /// The figure now.
    pub now: f64,
    /// The difference that noise alone explains.
    pub noise: f64,
    /// How many times worse it is now; below 1 it is better.
    pub worse: f64,
}

impl Change {
    /// Whether the figure moved by more than noise.
    #[must_use]
    pub fn is_real(&self) -> bool {
        (self.now - self.before).abs() > self.noise
    }
}

/// Every row that both reports have.
///
/// Nanoseconds of the earlier report are scaled by what the calibration costs now and cost then, so that a report may
/// come from another machine.
#[must_use]
pub fn changes(before: &Report, now: &Report) -> Vec<Change> {
    let calibrations = before.row(CALIBRATION).zip(now.row(CALIBRATION));
    let scale = calibrations.and_then(|(before, now)| Scale::between(before, now));
    let scale = scale.unwrap_or(Scale::NONE);
    let both = now
        .rows
        .iter()
        .filter(|row| !is_of_the_machine(&row.name) && !row.of_a_peer);
    let both = both.filter_map(|row| before.row(&row.name).map(|before| (before, row)));
    both.map(|(before, now)| change(before, now, scale))
        .collect()
}

/// How much slower this machine is than that of the earlier report.
#[derive(Clone, Copy)]
struct Scale {
    factor: f64,
    /// Standard error, relative.
    error: f64,
}

impl Scale {
    const NONE: Self = Self {
        factor: 1.0,
        error: 0.0,
    };

    /// By the best runs of the calibration, then and now.
    fn between(before: &Row, now: &Row) -> Option<Self> {
        let (least_before, least_now) = (before.net_min()?, now.net_min()?);
        let both = least_before > 0.0 && least_now > 0.0;
        both.then(|| Self {
            factor: least_now / least_before,
            error: (now.error() / least_now).hypot(before.error() / least_before),
        })
    }
}

fn change(before: &Row, now: &Row, scale: Scale) -> Change {
    // A ratio is the same on every machine.
    let (scale, resolution) = match now.unit {
        Unit::Nanoseconds if now.ratio.is_none() => (scale, RESOLUTION_NS),
        _ => (Scale::NONE, 0.0),
    };
    let figure = before.figure() * scale.factor;
    let error_before = (before.error() * scale.factor).hypot(figure * scale.error);
    Change {
        name: now.name.clone(),
        before: figure,
        now: now.figure(),
        noise: ERRORS * now.error().hypot(error_before) + resolution,
        worse: if now.unit.is_a_cost() {
            now.figure() / figure
        } else {
            figure / now.figure()
        },
    }
}

/// Prints what has moved, and how many rows have not.
pub fn print(screen: Screen, changes: &[Change]) {
    let (real, noise): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| change.is_real());
    let width = real
        .iter()
        .map(|change| change.name.len())
        .max()
        .unwrap_or_default();
    screen.heading(format_args!(
        "{} of {} rows moved by more than noise",
        real.len(),
        real.len() + noise.len()
    ));
    for change in real {
        let (colour, word) = if change.worse > 1.0 {
            (Colour::Red, "worse")
        } else {
            (Colour::Green, "better")
        };
        let line = format!(
            "{:width$} {:10.3} -> {:10.3}  (noise {:.3})  {:.2} x  {word}",
            change.name, change.before, change.now, change.noise, change.worse
        );
        screen.line(screen.paint(colour, line));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::report::Run;

    fn report(rows: &[(&str, f64, f64)]) -> Report {
        let row = |&(name, net, wobble): &(&str, f64, f64)| {
            let runs = [-1.0, 0.0, 1.0].map(|sign| Run {
                value: 30.0 + net + sign * wobble,
                floor: Some(30.0),
                peer: None,
            });
            Row::new(
                name.to_owned(),
                Unit::Nanoseconds,
                runs.to_vec(),
                BTreeMap::new(),
            )
        };
        Report {
            machine: String::new(),
            kernel: String::new(),
            commit: String::new(),
            date: String::new(),
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn what_is_within_the_noise_has_not_moved() {
        let before = report(&[("steady", 20.0, 0.1), ("wobbly", 20.0, 5.0)]);
        let now = report(&[
            ("steady", 22.0, 0.1),
            ("wobbly", 22.0, 5.0),
            ("new", 1.0, 0.0),
        ]);
        let seen: Vec<_> = changes(&before, &now)
            .iter()
            .map(|change| (change.name.clone(), change.is_real()))
            .collect();
        assert_eq!(
            seen,
            [("steady".to_owned(), true), ("wobbly".to_owned(), false)]
        );
    }

    #[test]
    fn a_slower_machine_is_no_regression() {
        let before = report(&[(CALIBRATION, 40.0, 0.1), ("a", 20.0, 0.1)]);
        let now = report(&[(CALIBRATION, 80.0, 0.1), ("a", 40.0, 0.1)]);
        assert!(!changes(&before, &now)[0].is_real());
        let worse = report(&[(CALIBRATION, 80.0, 0.1), ("a", 55.0, 0.1)]);
        assert!(changes(&before, &worse)[0].is_real());
    }
}
