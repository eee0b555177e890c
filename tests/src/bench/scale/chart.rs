//! The rows of this part as lines over their numbers, on a logarithmic scale.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::report::{Report, Row, Unit};

const SIZE: (u32, u32) = (1_200, 1_360);
const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x2f, 0x5f, 0xa8),
    RGBColor(0xc0, 0x6a, 0x00),
    RGBColor(0x1a, 0x7f, 0x4b),
    RGBColor(0x9b, 0x2f, 0x6b),
    RGBColor(0x5b, 0x4b, 0xb5),
    RGBColor(0x6b, 0x70, 0x78),
];

/// Lines that are seen together.
struct Panel {
    title: &'static str,
    /// What the names of its rows begin with, and their unit.
    of: (&'static str, Unit),
    /// What the numbers are of.
    numbers: &'static str,
}

const PANELS: [Panel; 5] = [
    Panel {
        title: "A packet of a known flow: ns above the floor",
        of: ("scale/packet/hit/", Unit::Nanoseconds),
        numbers: "services, backends, other flows in the table",
    },
    Panel {
        title: "The first packet of a flow: ns above the floor",
        of: ("scale/packet/new/", Unit::Nanoseconds),
        numbers: "services, backends, other flows in the table",
    },
    Panel {
        title: "An order to the agent: ms",
        of: ("scale/agent/", Unit::Milliseconds),
        numbers: "services and backends; of `change-of` the backends that change",
    },
    Panel {
        title: "The agent left alone: ms of a CPU a second",
        of: ("scale/agent/", Unit::MillisecondsPerSecond),
        numbers: "services and backends; of `held` entries of the flow table",
    },
    Panel {
        title: "Memory: MiB",
        of: ("scale/agent/", Unit::Mebibytes),
        numbers: "services and backends",
    },
];

/// A line: its name, and its points.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Draws the lines as SVG and as PNG where there are any, and says where.
pub(in super::super) fn write(report: &Report, directory: &Path) -> Result<Vec<PathBuf>> {
    let rows: Vec<_> = report.rows.iter().filter(|row| super::has(row)).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let svg = directory.join("scale.svg");
    let png = directory.join("scale.png");
    draw(
        &SVGBackend::new(&svg, SIZE).into_drawing_area(),
        report,
        &rows,
    )
    .with_context(|| svg.display().to_string())?;
    draw(
        &BitMapBackend::new(&png, SIZE).into_drawing_area(),
        report,
        &rows,
    )
    .with_context(|| png.display().to_string())?;
    Ok(vec![svg, png])
}

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    report: &Report,
    rows: &[&Row],
) -> Result<()>
where
    B::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let (head, body) = area.split_vertically(64);
    text(&head, "What grows, and what does not", (16, 22), 19, INK)?;
    let Report {
        machine,
        kernel,
        commit,
        date,
        ..
    } = report;
    let origin = format!("{machine}, Linux {kernel}, commit {commit}, {date}");
    text(&head, &origin, (16, 48), 12, INK)?;
    for (panel, place) in PANELS.iter().zip(body.split_evenly((3, 2))) {
        panel.draw(&place, rows)?;
    }
    area.present()?;
    Ok(())
}

impl Panel {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, rows: &[&Row]) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let (prefix, unit) = self.of;
        let of_panel = |row: &&&Row| row.name.starts_with(prefix) && row.unit == unit;
        let rows: Vec<&Row> = rows.iter().filter(of_panel).copied().collect();
        let lines: Vec<Line<'_>> = super::lines(&rows)
            .into_iter()
            .map(|(name, rows)| {
                let name = name.strip_prefix(prefix).unwrap_or(name);
                (name, rows.into_iter().filter_map(point).collect())
            })
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        text(area, self.title, (16, 16), 14, INK)?;
        let legend = |place: usize| i32::try_from(place).unwrap_or(i32::MAX) * 84 + 64;
        for (place, (name, _)) in lines.iter().enumerate() {
            text(area, name, (legend(place), 36), 12, colour(place))?;
        }
        let plot = area.margin(48, 8, 8, 24);
        let all = || lines.iter().flat_map(|(_, points)| points);
        let x = padded(all().map(|(x, _)| *x));
        let y = all().map(|(_, y)| *y);
        if unit == Unit::Nanoseconds {
            let most = y.fold(0.0, f64::max);
            let mut chart = ChartBuilder::on(&plot);
            let chart = chart.x_label_area_size(40).y_label_area_size(56);
            self.fill(
                chart.build_cartesian_2d(x.log_scale(), 0.0..most * 1.1)?,
                &lines,
            )
        } else {
            let mut chart = ChartBuilder::on(&plot);
            let chart = chart.x_label_area_size(40).y_label_area_size(56);
            let y = padded(y);
            self.fill(
                chart.build_cartesian_2d(x.log_scale(), y.log_scale())?,
                &lines,
            )
        }
    }

    fn fill<B, X, Y>(
        &self,
        mut chart: ChartContext<'_, B, Cartesian2d<X, Y>>,
        lines: &[Line<'_>],
    ) -> Result<()>
    where
        B: DrawingBackend,
        B::ErrorType: 'static,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let font = ("monospace", 12).into_font().color(&INK);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(FAINT)
            .axis_style(INK)
            .label_style(font.clone())
            .axis_desc_style(font)
            .x_desc(self.numbers)
            .x_label_formatter(&|number| short(*number))
            .y_label_formatter(&|figure| short(*figure))
            .draw()?;
        for (place, (_, points)) in lines.iter().enumerate() {
            let colour = colour(place);
            let path = PathElement::new(points.clone(), colour.stroke_width(2));
            chart.draw_series([path])?;
            let dots = points.iter();
            chart.draw_series(dots.map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        Ok(())
    }
}

/// Where a row is; a number of 0 stands at 1.
fn point(row: &Row) -> Option<(f64, f64)> {
    let (_, number) = super::place(row)?;
    Some((
        f64::from(number.max(1)),
        row.net.unwrap_or(row.median).max(f64::MIN_POSITIVE),
    ))
}

/// Whole decades around all values.
fn padded(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) = values
        .filter(|value| *value > 1e-6)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
    if least > most {
        return 0.1..10.0;
    }
    10f64.powf(least.log10().floor())..10f64.powf((most * 1.01).log10().ceil())
}

fn short(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{}M", number / 1e6),
        number if number >= 1e3 => format!("{}k", number / 1e3),
        number => format!("{}", (number * 1e3).round() / 1e3),
    }
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

fn text<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    words: &str,
    place: (i32, i32),
    size: i32,
    colour: RGBColor,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let style = ("monospace", size)
        .into_font()
        .color(&colour)
        .pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(words.to_owned(), place, style))
        .map_err(|error| anyhow!("{error}"))
}
