//! The picture of applications: a panel for each metric, a bar for each carrier, from zero, so that lengths compare.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::carrier::Kind;
use super::metric::Metric;
use crate::bench::figures::least;
use crate::bench::plot::{FAINT, INK, MISSED, PLAIN, REACHED, line, text, whole};
use crate::bench::report::{Report, Row};

/// Panels beside each other.
const COLUMNS: usize = 2;
/// Pixels of the whole width.
const WIDTH: i32 = 1_080;
/// Pixels above the first panel.
const HEAD: i32 = 106;
/// Pixels of a panel's title.
const TITLE: i32 = 34;
/// Pixels of a bar and the space to the next.
const BAR: i32 = 22;
/// Pixels from a panel to the one below.
const GAP: i32 = 26;
/// Where names end and bars begin.
const NAMES: i32 = 80;
/// Space for the numbers at the right.
const NUMBERS: i32 = 140;

const OTHER: RGBColor = RGBColor(0xa9, 0xb1, 0xbb);

/// A metric's rows.
struct Panel<'a> {
    metric: Metric,
    bars: Vec<(Kind, &'a Row)>,
    /// What the balancer should reach, in the unit of the metric.
    targets: Vec<f64>,
    reached: Option<bool>,
    /// Figure at the right edge.
    highest: f64,
}

/// Draws what a report says of applications, as SVG and as PNG, and says where. Without such rows there is no picture.
///
/// # Errors
/// Where a file can't be written.
pub(in crate::bench) fn draw(report: &Report, directory: &Path) -> Result<Vec<PathBuf>> {
    let panels: Vec<_> = Metric::ALL
        .into_iter()
        .filter_map(|metric| Panel::new(report, metric))
        .collect();
    if panels.is_empty() {
        return Ok(Vec::new());
    }
    let heights: Vec<i32> = panels.chunks(COLUMNS).map(height).collect();
    let size = (
        WIDTH.unsigned_abs(),
        (HEAD + heights.iter().sum::<i32>()).unsigned_abs(),
    );
    let svg = directory.join("app.svg");
    let png = directory.join("app.png");
    paint(
        &SVGBackend::new(&svg, size).into_drawing_area(),
        report,
        &panels,
        &heights,
    )
    .with_context(|| svg.display().to_string())?;
    paint(
        &BitMapBackend::new(&png, size).into_drawing_area(),
        report,
        &panels,
        &heights,
    )
    .with_context(|| png.display().to_string())?;
    Ok(vec![svg, png])
}

/// Pixels of the panels beside each other, with the gap below.
fn height(panels: &[Panel<'_>]) -> i32 {
    let bars = panels
        .iter()
        .map(|panel| panel.bars.len())
        .max()
        .unwrap_or_default();
    TITLE + BAR * i32::try_from(bars).unwrap_or_default() + GAP
}

fn paint<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    report: &Report,
    panels: &[Panel<'_>],
    heights: &[i32],
) -> Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    text(
        area,
        "Applications through the balancer and its peers",
        (16, 24),
        19,
        INK,
        HPos::Left,
    )?;
    let Report {
        machine,
        kernel,
        commit,
        date,
        ..
    } = report;
    let origin = format!("{machine}, Linux {kernel}, commit {commit}, {date}");
    text(area, &origin, (16, 50), 12, INK, HPos::Left)?;
    let legend = "bar: median   line: least to most of the runs   mark: the balancer's target   \
                  in brackets: ratio to direct's median";
    text(area, legend, (16, 70), 12, INK, HPos::Left)?;
    let mut top = HEAD;
    for (beside, height) in panels.chunks(COLUMNS).zip(heights) {
        for (panel, left) in beside.iter().zip([16, WIDTH / 2 + 16]) {
            panel.paint(area, (left, top), WIDTH / 2 - 32)?;
        }
        top += height;
    }
    area.present()?;
    Ok(())
}

impl<'a> Panel<'a> {
    fn new(report: &'a Report, metric: Metric) -> Option<Self> {
        let mut bars = Vec::new();
        let (mut targets, mut reached) = (Vec::new(), None);
        for line in Metric::lines()
            .into_iter()
            .filter(|line| line.metric == metric)
        {
            let Some(row) = report.row(&line.name) else {
                continue;
            };
            targets.extend(
                line.target
                    .zip(row.peer)
                    .map(|(target, peer)| target * peer),
            );
            if let Some(reaches) = row.reached(1.0) {
                reached = Some(reached.unwrap_or(true) && reaches);
            }
            if bars.iter().all(|(kind, _)| *kind != line.kind) {
                bars.push((line.kind, row));
            }
        }
        let all = bars
            .iter()
            .flat_map(|(_, row)| row.runs.iter().map(|run| run.value));
        let highest = all.fold(0.0, f64::max);
        (highest > 0.0).then_some(Self {
            metric,
            bars,
            targets,
            reached,
            highest,
        })
    }

    fn paint<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        (left, top): (i32, i32),
        width: i32,
    ) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let right = left + width;
        text(area, self.metric.title(), (left, top), 14, INK, HPos::Left)?;
        let better = if self.metric.unit().is_a_cost() {
            "less is better"
        } else {
            "more is better"
        };
        text(area, better, (right, top), 12, INK, HPos::Right)?;
        line(
            area,
            [(left, top + 13), (right, top + 13)],
            FAINT.stroke_width(1),
        )?;
        let zero = left + NAMES;
        let x =
            |figure: f64| zero + whole(figure / self.highest * f64::from(width - NAMES - NUMBERS));
        let direct = self
            .bars
            .iter()
            .find(|(kind, _)| *kind == Kind::Direct)
            .map(|(_, row)| row.median);
        for ((kind, row), y) in self.bars.iter().zip((top + TITLE..).step_by(22)) {
            let ours = *kind == Kind::Balancer;
            let colour = match self.reached {
                Some(true) if ours => REACHED,
                Some(false) if ours => MISSED,
                _ if ours => PLAIN,
                _ => OTHER,
            };
            text(area, kind.name(), (left, y), 12, INK, HPos::Left)?;
            area.draw(&Rectangle::new(
                [(zero, y - 7), (x(row.median), y + 7)],
                colour.filled(),
            ))?;
            let values: Vec<f64> = row.runs.iter().map(|run| run.value).collect();
            let most = values.iter().copied().fold(0.0, f64::max);
            line(
                area,
                [(x(least(&values)), y), (x(most), y)],
                INK.stroke_width(1),
            )?;
            for target in self
                .targets
                .iter()
                .filter(|target| ours && **target <= self.highest)
            {
                line(
                    area,
                    [(x(*target), y - 10), (x(*target), y + 10)],
                    INK.stroke_width(2),
                )?;
            }
            let share = direct.map(|direct| format!(" ({:.2})", row.median / direct));
            let figure = format!("{}{}", short(row.median), share.unwrap_or_default());
            text(
                area,
                &figure,
                (right, y),
                12,
                if ours { colour } else { INK },
                HPos::Right,
            )?;
        }
        Ok(())
    }
}

/// A figure with three digits.
fn short(figure: f64) -> String {
    match figure {
        10_000.0.. => format!("{:.1} k", figure / 1e3),
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::bench::plot;
    use crate::bench::report::{Run, Unit};

    #[test]
    fn a_report_of_applications_becomes_both_files_and_another_none() {
        let row = |name: &str, value, peer| {
            let runs = vec![
                Run {
                    value,
                    floor: None,
                    peer
                };
                3
            ];
            Row::new(
                name.to_owned(),
                Unit::RequestsPerSecond,
                runs,
                BTreeMap::new(),
            )
        };
        let mut report = Report {
            machine: "machine".to_owned(),
            kernel: "1.2".to_owned(),
            commit: "abc".to_owned(),
            date: "today".to_owned(),
            rows: vec![
                row("app/requests/direct", 80_000.0, None),
                row("app/requests/lb", 60_000.0, Some(64_000.0)).with_target(Some(0.9)),
            ],
        };
        let directory = std::env::temp_dir().join(format!("lbt{}-app-figure", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let written = plot::write(&report, &directory).unwrap();
        let read = |file: usize| fs::read(&written[file]).unwrap();
        let (svg, png) = (String::from_utf8(read(0)).unwrap(), read(1));
        assert!(
            svg.contains("60.0 k (0.75)") && svg.contains("haproxy").eq(&false),
            "{svg}"
        );
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        report.rows.clear();
        assert_eq!(draw(&report, &directory).unwrap(), Vec::<PathBuf>::new());
        fs::remove_dir_all(&directory).unwrap();
    }
}
