//! One run: the load, and whether it was what it should have been.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::carrier::{Carrier, Kind};
use super::cpu_time::{self, Moment, Receivers};
use super::load::{self, Load};
use super::metric::{Setting, Work};
use super::network::{Network, Served};

/// What a run gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Requests, or bits, a second.
    pub(super) rate: f64,
    /// Middle of what a request took, in microseconds.
    pub(super) p50: f64,
    /// What all but one in a hundred took at most.
    pub(super) p99: f64,
    /// CPU time of the carrier for a request, in microseconds, where that was measured.
    pub(super) cpu: f64,
    /// How many CPUs others used meanwhile.
    pub(super) others: f64,
    /// Tries before this one that failed.
    pub(super) failures: u64,
    served: Served,
    flows: Option<u64>,
    drops: Option<u64>,
}

impl Outcome {
    /// What happened, for the row's counts.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("connections", Some(self.served.connections)),
            ("web0", Some(self.served.requests[0])),
            ("web1", Some(self.served.requests[1])),
            ("flows", self.flows),
            ("dropped", self.drops),
            ("failed_tries", Some(self.failures)),
            (
                super::DISTURBED,
                Some(u64::from(self.others > super::OTHERS)),
            ),
        ]
        .into_iter()
        .filter_map(|(name, count)| count.map(|count| (name, count)))
    }
}

/// A run of a load through a carrier.
///
/// # Errors
/// Where a request failed, or somebody counted otherwise than the client.
pub(super) fn run(carrier: &Carrier, kind: Kind, work: Work, span: Duration) -> Result<Outcome> {
    let network = &carrier.network;
    carrier.forget()?;
    network.new_client()?;
    let _set = Set::new(network, work.setting)?;
    let counters = carrier.counters()?;
    let served = network.served()?;
    let cost = Cost::begin(carrier, work.setting)?;
    let before = Moment::now()?;
    let mut outcome = match work.load {
        Load::Bulk => Outcome {
            rate: load::bulk(network, kind.balances(), span)?,
            ..Outcome::default()
        },
        load => {
            let answered = load::requests(network, load, kind.balances(), span)?;
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
            let rate = answered.requests as f64 / (answered.duration / 1e6);
            Outcome {
                rate,
                p50: answered.p50,
                p99: answered.p99,
                ..Outcome::default()
            }
        }
    };
    outcome.others = before.others_since()?;
    let took = cost.map(Cost::end).transpose()?;
    outcome.served = network.served()?.since(served);
    if let Some(((flows_before, drops_before), (flows, drops))) = counters.zip(carrier.counters()?)
    {
        outcome.flows = Some(flows.saturating_sub(flows_before));
        outcome.drops = Some(drops - drops_before);
    }
    if work.load != Load::Bulk {
        check(&outcome, kind, work.load, span)?;
        let [first, second] = outcome.served.requests;
        let requests = u32::try_from(first + second)?;
        outcome.cpu = took.map_or(0.0, |took| took.as_secs_f64() * 1e6 / f64::from(requests));
    }
    Ok(outcome)
}

/// Whether the servers and the carrier saw what the client says.
fn check(outcome: &Outcome, kind: Kind, load: Load, span: Duration) -> Result<()> {
    let Served {
        connections,
        requests: [first, second],
    } = outcome.served;
    let requests = first + second;
    let seen = format!("{outcome:?}");
    // The client's rate times the time that it was given, which is a little longer than that.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    let share = requests as f64 / (outcome.rate * span.as_secs_f64());
    ensure!(
        (0.95..1.6).contains(&share),
        "the servers answered {requests} requests: {seen}"
    );
    if load == Load::NewConnections {
        ensure!(
            connections.abs_diff(requests) <= requests / 50 + 10,
            "not a connection each: {seen}"
        );
    } else {
        ensure!(connections < 200, "connections did not stay: {seen}");
    }
    if load != Load::Single {
        let half = requests / 2;
        // Connections are dealt in turn; how many requests each carries is the scheduler's and the servers' to say.
        let off = if load == Load::NewConnections && kind.balances() {
            half / 20
        } else {
            half / 3
        };
        ensure!(first.abs_diff(half) <= off, "not half each: {seen}");
    }
    if let Some(flows) = outcome.flows {
        ensure!(
            flows.abs_diff(connections) <= connections / 50 + 10,
            "flows other than connections: {seen}"
        );
    }
    Ok(())
}

/// What is set for a run, and set back at its end.
struct Set<'a> {
    network: &'a Network,
    setting: Setting,
}

impl<'a> Set<'a> {
    fn new(network: &'a Network, setting: Setting) -> Result<Self> {
        let set = Self { network, setting };
        set.switch(true)?;
        Ok(set)
    }

    fn switch(&self, on: bool) -> Result<()> {
        match self.setting {
            Setting::Usual => Ok(()),
            Setting::Threads => self.network.receive_in_threads(on),
            Setting::Offloads => self.network.offload(on),
        }
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.switch(false) {
            eprintln!("harness: {error:#}");
        }
    }
}

/// What the carrier has used so far.
struct Cost {
    receivers: Receivers,
    process: Option<u32>,
    begun: Duration,
}

impl Cost {
    fn begin(carrier: &Carrier, setting: Setting) -> Result<Option<Self>> {
        if setting != Setting::Threads {
            return Ok(None);
        }
        let network = &carrier.network;
        let receivers = Receivers::of(&[&network.front, &network.back])?;
        let mut cost = Self {
            receivers,
            process: carrier.process(),
            begun: Duration::ZERO,
        };
        cost.begun = cost.so_far()?;
        Ok(Some(cost))
    }

    fn so_far(&self) -> Result<Duration> {
        let process = self
            .process
            .map(cpu_time::ran)
            .transpose()
            .context("the carrier's process")?;
        Ok(self.receivers.ran()? + process.unwrap_or_default())
    }

    fn end(self) -> Result<Duration> {
        Ok(self.so_far()?.saturating_sub(self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second at 10,000 requests a second, a connection each.
    fn outcome(requests: [u64; 2], connections: u64, flows: Option<u64>) -> Outcome {
        Outcome {
            rate: 10_000.0,
            served: Served {
                connections,
                requests,
            },
            flows,
            ..Outcome::default()
        }
    }

    fn refused(outcome: &Outcome, load: Load) -> String {
        let checked = check(outcome, Kind::Balancer, load, Duration::from_millis(500));
        checked.map_or_else(|error| error.to_string(), |()| "not refused".to_owned())
    }

    #[test]
    fn a_run_counts_only_where_everybody_saw_the_same() {
        let load = Load::NewConnections;
        let good = outcome([2_600, 2_601], 5_201, Some(5_201));
        assert_eq!(refused(&good, load), "not refused");
        let lost = outcome([600, 601], 1_201, Some(1_201));
        assert!(refused(&lost, load).starts_with("the servers answered 1201"));
        let kept = outcome([2_600, 2_601], 32, Some(32));
        assert!(refused(&kept, load).starts_with("not a connection each"));
        assert_eq!(refused(&kept, Load::Requests), "not refused");
        let uneven = outcome([2_800, 2_401], 5_201, Some(5_201));
        assert!(refused(&uneven, load).starts_with("not half each"));
        let around = outcome([2_600, 2_601], 5_201, Some(0));
        assert!(refused(&around, load).starts_with("flows other than connections"));
        let moved = outcome([2_600, 2_601], 5_201, Some(5_201));
        assert!(refused(&moved, Load::Requests).starts_with("connections did not stay"));
    }
}
