//! Prometheus, the real one: scrapes the agent, answers queries; and promtool's opinion of a page of metrics.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command;
use crate::daemon::Daemon;
use crate::http::Client;
use crate::netns::Netns;
use crate::poll::{self, SOON};
use crate::scratch::Scratch;

/// Where it listens, in its namespace.
const LISTEN: &str = "127.0.0.1:9090";

/// A running Prometheus; killed when dropped.
pub struct Prometheus {
    netns: Netns,
    _daemon: Daemon,
    _scratch: Scratch,
}

impl Prometheus {
    /// Starts it in a namespace, scraping `target` there every second, and waits until it is ready. A scrape may take as
    /// long: of a page that comes too late nothing is kept.
    ///
    /// # Errors
    /// Where it does not come up, with its log.
    pub fn start(netns: &Netns, target: &str) -> Result<Self> {
        let scratch = Scratch::new("prometheus")?;
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: lb
    static_configs: [{{targets: ['{target}']}}]
"
        );
        let mut command = netns.command("prometheus");
        command.arg(format!(
            "--config.file={}",
            scratch.write("prometheus.yml", &config)?.display()
        ));
        command.arg(format!(
            "--storage.tsdb.path={}",
            scratch.file("data").display()
        ));
        command.arg(format!("--web.listen-address={LISTEN}"));
        let daemon = Daemon::start(command, &scratch.file("prometheus.log"))?;
        let listen: SocketAddr = LISTEN.parse()?;
        daemon.wait_until(SOON, "being ready", || {
            let answer = Client::new(netns, listen).get("/-/ready")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        Ok(Self {
            netns: netns.clone(),
            _daemon: daemon,
            _scratch: scratch,
        })
    }

    /// The value of a query that gives one number.
    ///
    /// # Errors
    /// Where it gives none or several, with the answer.
    pub fn value(&self, query: &str) -> Result<f64> {
        let listen: SocketAddr = LISTEN.parse()?;
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer = Client::new(&self.netns, listen).get(&path)?;
        let report: Value =
            serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        let result = report["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        ensure!(
            result.len() == 1,
            "`{query}` gives {} series: {}",
            result.len(),
            answer.body
        );
        let value = result[0]["value"][1]
            .as_str()
            .and_then(|text| text.parse().ok());
        value.with_context(|| answer.body.clone())
    }

    /// Waits until a query gives this number.
    ///
    /// # Errors
    /// When that takes longer than `within`, with the last value.
    pub fn wait_for(&self, within: Duration, query: &str, expected: f64) -> Result<()> {
        poll::until(within, format!("`{query}` to be {expected}"), || {
            let value = self.value(query)?;
            ensure!((value - expected).abs() < f64::EPSILON, "it is {value}");
            Ok(())
        })
    }
}

/// What `promtool check metrics` says about a page of metrics; empty where it finds nothing.
///
/// # Errors
/// Where promtool cannot be run.
pub fn check_metrics(page: &str) -> Result<String> {
    let mut promtool = command::words("promtool check metrics")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool (installed by `cargo xtask setup`)")?;
    let mut stdin = promtool.stdin.take().context("promtool has no input")?;
    stdin.write_all(page.as_bytes())?;
    drop(stdin);
    let output = promtool.wait_with_output()?;
    let said = command::said(&output);
    if output.status.success() {
        Ok(said)
    } else {
        Ok(format!("{}\n{said}", output.status))
    }
}

/// A query as part of a URL.
fn escaped(query: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    query.bytes().map(escape).collect()
}
