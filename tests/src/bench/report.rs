//! What the bench found, as values that go to a file and come back from one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::figures::{error_of_median, least, median};
use crate::command;

/// Figures and where they come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Processor, number of CPUs and memory.
    pub machine: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Commit of the checkout, with `-dirty` where the files differ from it.
    pub commit: String,
    /// RFC 3339.
    pub date: String,
    /// One for each thing measured.
    pub rows: Vec<Row>,
}

/// One thing measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Of every figure but `ratio`.
    pub unit: Unit,
    /// Least of the runs.
    pub min: f64,
    /// Middle of the runs.
    pub median: f64,
    /// Middle of what the same work costs without the program under test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// `median` less `floor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<f64>,
    /// Every run, in the order of time.
    pub runs: Vec<Run>,
    /// What became of the packets, over all runs.
    pub verdicts: BTreeMap<String, u64>,
    /// Middle of the peer's runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<f64>,
    /// Middle of the runs' ratios to the peer's run beside each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What [`Row::figure`] should reach.
    #[serde(skip)]
    pub target: Option<f64>,
    /// Whether this is not the product but what it is compared with.
    #[serde(skip)]
    pub of_a_peer: bool,
}

/// What a part of the bench gives.
#[derive(Debug, Default)]
pub struct Found {
    /// Rows with figures.
    pub rows: Vec<Row>,
    /// Rows without, each with its name and the reason.
    pub faults: Vec<anyhow::Error>,
}

/// One run, and those that ran beside it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What was measured.
    pub value: f64,
    /// The same work without the program under test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// The peer, above the floor where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<f64>,
}

/// Unit of a row, which also says which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// For one packet.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// In a second.
    #[serde(rename = "packets/s")]
    PacketsPerSecond,
    /// In a second.
    #[serde(rename = "connections/s")]
    ConnectionsPerSecond,
    /// In a second.
    #[serde(rename = "requests/s")]
    RequestsPerSecond,
    /// In a second, 10^9 of them.
    #[serde(rename = "Gbit/s")]
    GigabitsPerSecond,
    /// For one request.
    #[serde(rename = "us")]
    Microseconds,
    /// From an order to its end.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Of a CPU, in a second.
    #[serde(rename = "ms/s")]
    MillisecondsPerSecond,
    /// Of memory.
    #[serde(rename = "MiB")]
    Mebibytes,
}

impl Report {
    /// A report of here and now.
    ///
    /// # Errors
    /// Where `/proc` does not say what machine this is.
    pub fn new(rows: Vec<Row>) -> Result<Self> {
        Ok(Self {
            machine: machine()?,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            rows,
        })
    }

    /// Reads a report that [`Report::write`] wrote.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Adds runs to the rows of these names, and the rows that were not there.
    pub fn add_runs(&mut self, rows: Vec<Row>) {
        for more in rows {
            let Some(row) = self.rows.iter_mut().find(|row| row.name == more.name) else {
                self.rows.push(more);
                continue;
            };
            let runs = row.runs.iter().chain(&more.runs).copied().collect();
            let mut verdicts = row.verdicts.clone();
            for (verdict, packets) in more.verdicts {
                *verdicts.entry(verdict).or_default() += packets;
            }
            *row = Row {
                target: row.target,
                ..Row::new(more.name, row.unit, runs, verdicts)
            };
        }
    }

    /// The row of a name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

impl Row {
    /// A row of these runs.
    #[must_use]
    pub fn new(name: String, unit: Unit, runs: Vec<Run>, verdicts: BTreeMap<String, u64>) -> Self {
        let values: Vec<f64> = runs.iter().map(|run| run.value).collect();
        let floors: Vec<f64> = runs.iter().filter_map(|run| run.floor).collect();
        let peers: Vec<f64> = runs.iter().filter_map(|run| run.peer).collect();
        let ratios: Vec<f64> = runs.iter().filter_map(Run::ratio).collect();
        let middle = median(&values);
        let present = |values: &[f64]| (!values.is_empty()).then(|| median(values));
        let floor = present(&floors);
        Self {
            name,
            unit,
            min: least(&values),
            median: middle,
            floor,
            net: floor.map(|floor| middle - floor),
            runs,
            verdicts,
            peer: present(&peers),
            ratio: present(&ratios),
            target: None,
            of_a_peer: false,
        }
    }

    /// With a target for [`Row::figure`].
    #[must_use]
    pub fn with_target(self, target: Option<f64>) -> Self {
        Self { target, ..self }
    }

    /// The figure to be judged by: the ratio to a peer, else what is above the floor, else the middle of the runs.
    #[must_use]
    pub fn figure(&self) -> f64 {
        self.ratio.or(self.net).unwrap_or(self.median)
    }

    /// Whether [`Row::figure`] reaches the target, where there is one, on a machine that is `scale` times slower than
    /// the one it is for.
    #[must_use]
    pub fn reached(&self, scale: f64) -> Option<bool> {
        self.target.map(|target| {
            if self.unit.is_a_cost() {
                self.figure() <= target * scale
            } else {
                self.figure() >= target
            }
        })
    }

    /// Standard error of [`Row::figure`].
    #[must_use]
    pub fn error(&self) -> f64 {
        let figures: Vec<f64> = self.runs.iter().map(Run::figure).collect();
        error_of_median(&figures)
    }

    /// Least of the runs less the least of the floor's.
    #[must_use]
    pub fn net_min(&self) -> Option<f64> {
        let floors: Vec<f64> = self.runs.iter().filter_map(|run| run.floor).collect();
        self.floor.map(|_| self.min - least(&floors))
    }
}

impl Run {
    fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| self.net() / peer)
    }

    fn figure(&self) -> f64 {
        self.ratio().unwrap_or(self.net())
    }

    fn net(&self) -> f64 {
        self.value - self.floor.unwrap_or(0.0)
    }
}

impl Unit {
    /// As it is written behind a figure.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::PacketsPerSecond => "packets/s",
            Self::ConnectionsPerSecond => "connections/s",
            Self::RequestsPerSecond => "requests/s",
            Self::GigabitsPerSecond => "Gbit/s",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::MillisecondsPerSecond => "ms/s",
            Self::Mebibytes => "MiB",
        }
    }

    /// Whether less is better.
    #[must_use]
    pub fn is_a_cost(self) -> bool {
        !matches!(
            self,
            Self::PacketsPerSecond
                | Self::ConnectionsPerSecond
                | Self::RequestsPerSecond
                | Self::GigabitsPerSecond
        )
    }
}

/// The model of this machine's processor.
///
/// # Errors
/// Where `/proc` can't be read.
pub fn processor() -> Result<String> {
    let cpus = read("/proc/cpuinfo")?;
    let model = values_of(&cpus, "model name").next();
    Ok(model.unwrap_or("unknown processor").to_owned())
}

fn machine() -> Result<String> {
    let cpus = read("/proc/cpuinfo")?;
    let memory = read("/proc/meminfo")?;
    let kib = values_of(&memory, "MemTotal").next().unwrap_or_default();
    let kib: u64 = kib.trim_end_matches(" kB").parse().unwrap_or_default();
    Ok(format!(
        "{}, {} CPUs, {} GiB",
        processor()?,
        values_of(&cpus, "processor").count(),
        kib.div_ceil(1 << 20)
    ))
}

fn values_of<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(found, _)| found.trim() == key)
        .map(|(_, value)| value.trim())
}

/// As git names it; "unknown" where these files are no checkout.
fn commit() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    // The bench runs as root, and git asks who the owner is.
    let describe =
        format!("git -c safe.directory=* -C {root} describe --always --dirty --abbrev=12");
    command::line(&describe)
        .map_or_else(|_| "unknown".to_owned(), |commit| commit.trim().to_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).context(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64, floor: f64) -> Run {
        Run {
            value,
            floor: Some(floor),
            peer: None,
        }
    }

    #[test]
    fn a_row_states_its_runs() {
        let runs = vec![run(50.0, 30.0), run(60.0, 31.0), run(90.0, 32.0)];
        let row = Row::new("a".to_owned(), Unit::Nanoseconds, runs, BTreeMap::new());
        assert_eq!(
            (row.min, row.median, row.floor, row.net),
            (50.0, 60.0, Some(31.0), Some(29.0))
        );
        assert_eq!((row.figure(), row.net_min()), (29.0, Some(20.0)));
        assert_eq!((row.peer, row.ratio), (None, None));
    }

    #[test]
    fn a_report_survives_a_file() {
        let runs = vec![Run {
            value: 2.0,
            floor: None,
            peer: Some(4.0),
        }];
        let verdicts = BTreeMap::from([("tx".to_owned(), 7)]);
        let row = Row::new("a".to_owned(), Unit::PacketsPerSecond, runs, verdicts);
        assert_eq!(row.ratio, Some(0.5));
        let text = serde_json::to_string(&row).unwrap();
        let back: Row = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
        assert!(
            text.contains(r#""unit":"packets/s""#) && !text.contains("floor"),
            "{text}"
        );
    }
}
