//! The report as a picture: one line a row, a dot for the figure, on a logarithmic scale because rows differ by hundreds.
//!
//! The same drawing goes to an SVG and to a PNG. The font is part of the program, so that a picture looks the same on a
//! machine without any.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use epaint_default_fonts::HACK_REGULAR;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::app;
use super::figures::least;
use super::report::{Report, Row, Unit};
use super::{scale, table};

/// Pixels of a row.
const ROW: i32 = 20;
/// Pixels above the first row.
const HEAD: i32 = 92;
/// Pixels below the last.
const FOOT: i32 = 44;
/// Pixels of the whole width.
const WIDTH: i32 = 1_080;
/// Where names end and figures begin.
const NAMES: i32 = 330;
/// Space for the numbers at the right.
const NUMBERS: i32 = 96;

pub(super) const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
pub(super) const FAINT: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
pub(super) const REACHED: RGBColor = RGBColor(0x1a, 0x7f, 0x4b);
pub(super) const MISSED: RGBColor = RGBColor(0xc0, 0x6a, 0x00);
pub(super) const PLAIN: RGBColor = RGBColor(0x2f, 0x5f, 0xa8);

/// Draws one picture for each unit among the rows, as SVG and as PNG, and says where.
///
/// # Errors
/// Where there is nothing to draw, or a file can't be written.
pub fn write(report: &Report, directory: &Path) -> Result<Vec<PathBuf>> {
    register_font("monospace", FontStyle::Normal, HACK_REGULAR)
        .map_err(|_| anyhow!("the font is broken"))?;
    let mut written = Vec::new();
    for (unit, name) in [
        (Unit::Nanoseconds, "cost"),
        (Unit::PacketsPerSecond, "rate"),
    ] {
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|row| row.unit == unit && !scale::has(row))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let chart = Chart::new(report, unit, &rows)?;
        let size = (WIDTH.unsigned_abs(), chart.height().unsigned_abs());
        let svg = directory.join(name).with_extension("svg");
        chart
            .draw(&SVGBackend::new(&svg, size).into_drawing_area())
            .with_context(|| svg.display().to_string())?;
        let png = svg.with_extension("png");
        chart
            .draw(&BitMapBackend::new(&png, size).into_drawing_area())
            .with_context(|| png.display().to_string())?;
        written.extend([svg, png]);
    }
    written.extend(app::draw(report, directory)?);
    written.extend(scale::chart::write(report, directory)?);
    Ok(written)
}

struct Chart<'a> {
    report: &'a Report,
    unit: Unit,
    rows: Vec<Line<'a>>,
    /// Figures at the left and at the right edge.
    edges: (f64, f64),
}

/// A row as it is drawn.
struct Line<'a> {
    name: &'a str,
    figure: f64,
    least: f64,
    target: Option<f64>,
    reached: Option<bool>,
}

impl<'a> Chart<'a> {
    fn new(report: &'a Report, unit: Unit, rows: &[&'a Row]) -> Result<Self> {
        let scale = if unit.is_a_cost() {
            table::scale(report)
        } else {
            1.0
        };
        let rows: Vec<_> = rows.iter().map(|row| Line::new(row, scale)).collect();
        let all = rows
            .iter()
            .flat_map(|row| [Some(row.figure), Some(row.least), row.target]);
        let shown: Vec<f64> = all.flatten().filter(|figure| *figure > 0.0).collect();
        let highest = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let marks: Vec<f64> = scale_marks().map(|(figure, _)| figure).collect();
        let lower = marks.iter().rev().find(|mark| **mark <= least(&shown));
        let upper = marks.iter().find(|mark| **mark >= highest);
        Ok(Self {
            report,
            unit,
            rows,
            edges: lower
                .copied()
                .zip(upper.copied())
                .context("a report without figures")?,
        })
    }

    fn height(&self) -> i32 {
        HEAD + FOOT + ROW * count(self.rows.len())
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        area.fill(&WHITE)?;
        self.heading(area)?;
        self.grid(area)?;
        let mut group = None;
        for (row, y) in self.rows.iter().zip((HEAD + ROW / 2..).step_by(20)) {
            let of = row.name.rsplit_once('/').map(|(group, _)| group);
            if group.is_some() && group != Some(of) {
                line(
                    area,
                    [(16, y - ROW / 2), (WIDTH - 16, y - ROW / 2)],
                    FAINT.stroke_width(1),
                )?;
            }
            group = Some(of);
            self.row(area, row, y)?;
        }
        area.present()?;
        Ok(())
    }

    fn heading<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let Report {
            machine,
            kernel,
            commit,
            date,
            ..
        } = self.report;
        let what = match self.unit {
            Unit::Nanoseconds => "What a packet costs: nanoseconds above the floor",
            _ => "Packets a second, as a share of the peer's",
        };
        text(area, what, (16, 24), 19, INK, HPos::Left)?;
        let origin = format!("{machine}, Linux {kernel}, commit {commit}, {date}");
        text(area, &origin, (16, 50), 12, INK, HPos::Left)?;
        let legend = match self.unit {
            Unit::Nanoseconds => {
                "dot: median   end of the line: least   bar: target, for this machine"
            }
            _ => "dot: median of the runs' shares   bar: target",
        };
        text(area, legend, (16, 70), 12, INK, HPos::Left)
    }

    fn grid<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let bottom = self.height() - FOOT;
        let (low, high) = self.edges;
        for (figure, step) in scale_marks().filter(|(figure, _)| (low..=high).contains(figure)) {
            let x = self.x(figure);
            let strength = if step == 1 { 1.0 } else { 0.45 };
            line(
                area,
                [(x, HEAD), (x, bottom)],
                FAINT.mix(strength).stroke_width(1),
            )?;
            if matches!(step, 1 | 2 | 5) {
                text(
                    area,
                    &format!("{figure}"),
                    (x, bottom + 14),
                    12,
                    INK,
                    HPos::Center,
                )?;
            }
        }
        Ok(())
    }

    fn row<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        row: &Line<'_>,
        y: i32,
    ) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let colour = match row.reached {
            Some(true) => REACHED,
            Some(false) => MISSED,
            None => PLAIN,
        };
        text(area, row.name, (16, y), 12, INK, HPos::Left)?;
        if let Some(target) = row.target {
            let x = self.x(target);
            line(area, [(x, y - 7), (x, y + 7)], INK.stroke_width(2))?;
        }
        let x = self.x(row.figure);
        line(
            area,
            [(self.x(row.least), y), (x, y)],
            colour.stroke_width(2),
        )?;
        area.draw(&Circle::new((x, y), 4, colour.filled()))?;
        let figure = match self.unit {
            Unit::Nanoseconds => format!("{:.1}", row.figure),
            _ => format!("{:.2}", row.figure),
        };
        text(area, &figure, (WIDTH - 16, y), 12, colour, HPos::Right)
    }

    /// Where a figure stands; what is not above zero stands at the left edge.
    fn x(&self, figure: f64) -> i32 {
        let (low, high) = (self.edges.0.log10(), self.edges.1.log10());
        let place = ((figure.log10() - low) / (high - low)).clamp(0.0, 1.0);
        NAMES + whole(place * f64::from(WIDTH - NUMBERS - NAMES))
    }
}

impl<'a> Line<'a> {
    fn new(row: &'a Row, scale: f64) -> Self {
        let figure = row.figure();
        let target = row.target.map(|target| target * scale);
        Self {
            name: &row.name,
            figure,
            least: row.net_min().unwrap_or(figure),
            target,
            reached: target.map(|target| {
                if row.unit.is_a_cost() {
                    figure <= target
                } else {
                    figure >= target
                }
            }),
        }
    }
}

/// Every figure that the scale may show a line for, and its first digit.
fn scale_marks() -> impl Iterator<Item = (f64, i32)> {
    (-3..6).flat_map(|decade| (1..10).map(move |step| (f64::from(step) * 10f64.powi(decade), step)))
}

pub(super) fn line<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    ends: [(i32, i32); 2],
    style: ShapeStyle,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    Ok(area.draw(&PathElement::new(ends, style))?)
}

pub(super) fn text<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    words: &str,
    place: (i32, i32),
    size: i32,
    colour: RGBColor,
    anchor: HPos,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let style = ("monospace", size)
        .into_font()
        .color(&colour)
        .pos(Pos::new(anchor, VPos::Center));
    Ok(area.draw(&Text::new(words.to_owned(), place, style))?)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "figures of a picture are small"
)]
pub(super) fn whole(figure: f64) -> i32 {
    figure.round() as i32
}

fn count(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::bench::report::Run;

    #[test]
    fn both_files_are_pictures_that_name_the_rows() {
        let runs = vec![
            Run {
                value: 60.0,
                floor: Some(30.0),
                peer: None
            };
            3
        ];
        let row = Row::new(
            "hit/x/1".to_owned(),
            Unit::Nanoseconds,
            runs,
            BTreeMap::new(),
        );
        let report = Report {
            machine: "machine".to_owned(),
            kernel: "1.2".to_owned(),
            commit: "abc".to_owned(),
            date: "today".to_owned(),
            rows: vec![row.with_target(Some(15.0))],
        };
        let directory = std::env::temp_dir().join(format!("lbt{}-plot", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let written = write(&report, &directory).unwrap();
        let read = |file: usize| fs::read(&written[file]).unwrap();
        let (svg, png) = (String::from_utf8(read(0)).unwrap(), read(1));
        assert!(svg.contains("hit/x/1") && svg.contains("30.0"), "{svg}");
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        fs::remove_dir_all(&directory).unwrap();
    }
}
