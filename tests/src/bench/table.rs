//! The report as a table for people.

use super::app::{DISTURBED, OF_DISTURBED, OF_THROUGHPUT};
use super::report::{Report, Row, Unit};
use super::rows::{CALIBRATION, REFERENCE_NS};
use super::scale;
use crate::screen::{Colour, Screen};

/// Prints a report.
pub fn print(screen: Screen, report: &Report) {
    screen.heading(format_args!("{}, Linux {}", report.machine, report.kernel));
    screen.line(format_args!("commit {}, {}", report.commit, report.date));
    let (costs, rates): (Vec<&Row>, Vec<&Row>) = report
        .rows
        .iter()
        .filter(|row| !scale::has(row))
        .partition(|row| row.unit == Unit::Nanoseconds);
    if !costs.is_empty() {
        print_costs(screen, &costs, scale(report));
    }
    if !rates.is_empty() {
        print_rates(screen, &rates);
    }
    scale::table::print(screen, report);
}

/// How much slower this machine is than the one that the targets are for; 1 where that was not measured. By the best run:
/// what else the machine does makes the calibration slower, and must not make targets easier.
#[must_use]
pub fn scale(report: &Report) -> f64 {
    let calibration = report.row(CALIBRATION).and_then(Row::net_min);
    calibration.map_or(1.0, |net| net / REFERENCE_NS)
}

fn print_costs(screen: Screen, rows: &[&Row], scale: f64) {
    let width = name_width(rows);
    screen.heading(format_args!(
        "{:width$} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ns a packet", "raw min", "median", "floor", "net min", "net", "+-", "target"
    ));
    for row in rows {
        let target = row.target.map(|target| target * scale);
        let line = format!(
            "{:width$} {:9.1} {:9.1} {:>9} {:>9} {:9.1} {:9.1} {:>9}{}",
            row.name,
            row.min,
            row.median,
            optional(row.floor),
            optional(row.net_min()),
            row.figure(),
            row.error(),
            optional(target),
            astray(row),
        );
        screen.line(match target {
            Some(target) if row.figure() <= target => screen.paint(Colour::Green, line),
            Some(_) => screen.paint(Colour::Yellow, line),
            None => line,
        });
    }
    if (scale - 1.0).abs() > f64::EPSILON {
        screen.line(format_args!(
            "targets are for a machine whose {CALIBRATION} costs {REFERENCE_NS} ns, times {scale:.2} here"
        ));
    }
}

fn print_rates(screen: Screen, rows: &[&Row]) {
    let width = name_width(rows);
    screen.heading(format_args!(
        "{:width$} {:>12} {:>12} {:>12} {:>8} {:>7} {:>7}",
        "", "min", "median", "peer", "ratio", "+-", "target"
    ));
    for row in rows {
        // What is small in its unit.
        let digits = match row.unit {
            Unit::Microseconds | Unit::GigabitsPerSecond => 2,
            _ => 0,
        };
        let line = format!(
            "{:width$} {:12.digits$} {:12.digits$} {:>12} {:>8} {:7.3} {:>7}  {}{}",
            row.name,
            row.min,
            row.median,
            row.peer
                .map_or_else(String::new, |peer| format!("{peer:.digits$}")),
            row.ratio
                .map_or_else(String::new, |ratio| format!("{ratio:.3}")),
            row.error(),
            row.target
                .map_or_else(String::new, |target| format!("{target:.2}")),
            row.unit.name(),
            disturbed(row),
        );
        screen.line(match row.reached(1.0) {
            Some(true) => screen.paint(Colour::Green, line),
            Some(false) => screen.paint(Colour::Yellow, line),
            None => line,
        });
    }
    if rows
        .iter()
        .any(|row| row.name.starts_with("app/throughput"))
    {
        screen.line(OF_THROUGHPUT);
    }
    if rows.iter().any(|row| !disturbed(row).is_empty()) {
        screen.line(OF_DISTURBED);
    }
}

/// How many runs others disturbed, where any.
fn disturbed(row: &Row) -> String {
    match row.verdicts.get(DISTURBED) {
        None | Some(0) => String::new(),
        Some(runs) => format!("  {runs} of {} runs disturbed", row.runs.len()),
    }
}

/// How many packets of known flows had no entry, where there are any.
fn astray(row: &Row) -> String {
    let of = |name: &str| row.verdicts.get(name).copied().unwrap_or_default();
    let packets = match of("known") {
        0 => row.verdicts.values().sum::<u64>() - of("astray"),
        known => known,
    };
    let astray = of("astray") + of("known_astray");
    if astray == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let share = astray as f64 / packets as f64 * 100.0;
    format!("  {share:.3} % without an entry")
}

fn name_width(rows: &[&Row]) -> usize {
    rows.iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or_default()
}

fn optional(figure: Option<f64>) -> String {
    figure.map_or_else(String::new, |figure| format!("{figure:.1}"))
}
