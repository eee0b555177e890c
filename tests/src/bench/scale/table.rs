//! The rows of this part for people: a line of the chart after the other.

use super::super::report::{Report, Row};
use crate::screen::{Colour, Screen};

/// Prints the rows of this part, where there are any.
pub(in super::super) fn print(screen: Screen, report: &Report) {
    let rows: Vec<_> = report.rows.iter().filter(|row| super::has(row)).collect();
    let lines = super::lines(&rows);
    let width = rows.iter().map(|row| row.name.len()).max();
    let Some(width) = width else {
        return;
    };
    screen.heading(format_args!(
        "{:width$} {:>10} {:>10} {:>5} {:>8} {:>7} {:>7}",
        "scale", "least", "median", "", "ratio", "+-", "target"
    ));
    for (_, line) in lines {
        for row in line {
            print_row(screen, row, width);
        }
    }
    screen.line("packets: ns above the floor, and how many times the row with the least number");
}

fn print_row(screen: Screen, row: &Row, width: usize) {
    let ratio =
        |figure: Option<f64>| figure.map_or_else(String::new, |figure| format!("{figure:.3}"));
    let line = format!(
        "{:width$} {:10.1} {:10.1} {:5} {:>8} {:7.3} {:>7}",
        row.name,
        row.net_min().unwrap_or(row.min),
        row.net.unwrap_or(row.median),
        row.unit.name(),
        ratio(row.ratio),
        row.error(),
        row.target
            .map_or_else(String::new, |target| format!("{target:.2}")),
    );
    screen.line(match row.target {
        Some(target) if row.figure() <= target => screen.paint(Colour::Green, line),
        Some(_) => screen.paint(Colour::Yellow, line),
        None => line,
    });
}
