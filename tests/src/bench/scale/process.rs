//! What a process takes of the machine, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A running process.
pub(super) struct Process(PathBuf);

/// Time on a CPU by thread.
type Ran = BTreeMap<String, u64>;

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    /// Milliseconds on a CPU a second, over so long.
    pub(super) fn cpu(&self, over: Duration) -> Result<f64> {
        let (began, before) = (Instant::now(), self.ran()?);
        std::thread::sleep(over);
        let (after, took) = (self.ran()?, began.elapsed());
        let since = |(thread, ran): (&String, &u64)| {
            ran.saturating_sub(before.get(thread).copied().unwrap_or_default())
        };
        let nanoseconds: u64 = after.iter().map(since).sum();
        Ok(Duration::from_nanos(nanoseconds).as_secs_f64() / took.as_secs_f64() * 1e3)
    }

    /// MiB of memory that is its own: no files, no maps of the data plane.
    pub(super) fn memory(&self) -> Result<f64> {
        Ok(self.field("status", "RssAnon:")? / 1_024.0)
    }

    /// MiB of the BPF maps that it has open.
    pub(super) fn maps(&self) -> Result<f64> {
        let mut maps = BTreeMap::new();
        for file in fs::read_dir(self.0.join("fdinfo"))? {
            // A descriptor may be closed meanwhile.
            let text = fs::read_to_string(file?.path()).unwrap_or_default();
            if let (Some(id), Some(bytes)) = (value(&text, "map_id:"), value(&text, "memlock:")) {
                maps.insert(id.to_owned(), bytes.parse::<f64>().context(text.clone())?);
            }
        }
        Ok(maps.values().sum::<f64>() / f64::from(1 << 20))
    }

    fn ran(&self) -> Result<Ran> {
        let mut ran = Ran::new();
        for thread in fs::read_dir(self.0.join("task"))? {
            let thread = thread?;
            // A thread may end meanwhile.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let nanoseconds = text.split_whitespace().next();
            if let Some(nanoseconds) = nanoseconds.and_then(|word| word.parse().ok()) {
                ran.insert(
                    thread.file_name().to_string_lossy().into_owned(),
                    nanoseconds,
                );
            }
        }
        Ok(ran)
    }

    fn field(&self, file: &str, name: &str) -> Result<f64> {
        let text = fs::read_to_string(self.0.join(file))?;
        let value = value(&text, name).with_context(|| format!("no {name} in {text}"))?;
        value.parse().with_context(|| value.to_owned())
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}
