//! What is measured, by which load, beside which peer, and what it should reach.

use super::carrier::Kind;
use super::load::Load;
use super::run::Outcome;
use crate::bench::report::Unit;

/// A load, and how the kernel receives meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Work {
    /// What the client does.
    pub(super) load: Load,
    /// How.
    pub(super) setting: Setting,
}

/// What is set for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// As the networks are.
    Usual,
    /// The kernel receives in threads, whose time is known.
    Threads,
    /// With the offloads of segmentation and checksums, which XDP can't have on veth.
    Offloads,
}

impl Work {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match (self.load, self.setting) {
            (Load::NewConnections, Setting::Threads) => "new connections with threads",
            (Load::NewConnections, _) => "new connections",
            (Load::Requests, Setting::Threads) => "requests with threads",
            (Load::Requests, _) => "requests",
            (Load::Single, _) => "a single client",
            (Load::Bulk, Setting::Offloads) => "bulk with offloads",
            (Load::Bulk, _) => "bulk",
        }
    }
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Its name.
    pub(super) name: String,
    /// Its figure.
    pub(super) metric: Metric,
    /// Whose.
    pub(super) kind: Kind,
    /// Beside whose.
    pub(super) peer: Option<Kind>,
    /// What the ratio to the peer's should reach.
    pub(super) target: Option<f64>,
}

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// New connections a second.
    NewConnections,
    /// Requests a second over connections that stay.
    Requests,
    /// Middle of a single client's latencies.
    P50,
    /// What all but one in a hundred take at most.
    P99,
    /// Bits a second of one connection.
    Throughput,
    /// The same with the offloads that those without XDP may have.
    ThroughputOffloads,
    /// CPU time of the carrier for a connection with one request.
    CpuNewConnection,
    /// CPU time of the carrier for a request.
    CpuRequest,
}

impl Metric {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::NewConnections,
        Self::Requests,
        Self::P50,
        Self::P99,
        Self::Throughput,
        Self::ThroughputOffloads,
        Self::CpuNewConnection,
        Self::CpuRequest,
    ];

    /// Every row that there is.
    pub(super) fn lines() -> Vec<Line> {
        let mut lines = Vec::new();
        for metric in Self::ALL {
            for kind in Kind::ALL {
                if metric == Self::ThroughputOffloads
                    && matches!(kind, Kind::Redirect | Kind::Balancer)
                {
                    continue;
                }
                let name = format!("app/{}/{}", metric.name(), kind.name());
                let (peer, target) = metric.peer(kind);
                lines.push(Line {
                    name,
                    metric,
                    kind,
                    peer,
                    target,
                });
            }
            if metric.work().setting == Setting::Threads {
                let name = format!("app/{}/lb-vs-nftables", metric.name());
                let (kind, peer) = (Kind::Balancer, Some(Kind::Nftables));
                lines.push(Line {
                    name,
                    metric,
                    kind,
                    peer,
                    target: Some(0.8),
                });
            }
        }
        lines
    }

    /// In names of rows.
    fn name(self) -> &'static str {
        match self {
            Self::NewConnections => "new-connections",
            Self::Requests => "requests",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Throughput => "throughput",
            Self::ThroughputOffloads => "throughput-offloads",
            Self::CpuNewConnection => "cpu-new-connection",
            Self::CpuRequest => "cpu-request",
        }
    }

    /// Above its panel of the picture.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::NewConnections => "new connections a second",
            Self::Requests => "requests a second, kept alive",
            Self::P50 => "latency of a single client, p50, us",
            Self::P99 => "latency of a single client, p99, us",
            Self::Throughput => "one TCP stream, Gbit/s",
            Self::ThroughputOffloads => "the same with TSO, which XDP lacks on veth",
            Self::CpuNewConnection => "balancer's CPU a new connection, us",
            Self::CpuRequest => "balancer's CPU a kept-alive request, us",
        }
    }

    /// What has to be run.
    pub(super) fn work(self) -> Work {
        let (load, setting) = match self {
            Self::NewConnections => (Load::NewConnections, Setting::Usual),
            Self::Requests => (Load::Requests, Setting::Usual),
            Self::P50 | Self::P99 => (Load::Single, Setting::Usual),
            Self::Throughput => (Load::Bulk, Setting::Usual),
            Self::ThroughputOffloads => (Load::Bulk, Setting::Offloads),
            Self::CpuNewConnection => (Load::NewConnections, Setting::Threads),
            Self::CpuRequest => (Load::Requests, Setting::Threads),
        };
        Work { load, setting }
    }

    /// The unit of its rows.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::NewConnections => Unit::ConnectionsPerSecond,
            Self::Requests => Unit::RequestsPerSecond,
            Self::P50 | Self::P99 | Self::CpuNewConnection | Self::CpuRequest => Unit::Microseconds,
            Self::Throughput | Self::ThroughputOffloads => Unit::GigabitsPerSecond,
        }
    }

    /// The figure of a run.
    pub(super) fn value(self, outcome: &Outcome) -> f64 {
        match self {
            Self::NewConnections | Self::Requests => outcome.rate,
            Self::P50 => outcome.p50,
            Self::P99 => outcome.p99,
            Self::Throughput | Self::ThroughputOffloads => outcome.rate / 1e9,
            Self::CpuNewConnection | Self::CpuRequest => outcome.cpu,
        }
    }

    /// Beside whose run a row's is seen, and what the ratio to it should reach.
    ///
    /// The balancer's requests beside those that are redirected unseen, since XDP on veth costs what no balancer can
    /// save; its CPU beside `HAProxy`'s. Everything else beside plain routing.
    fn peer(self, kind: Kind) -> (Option<Kind>, Option<f64>) {
        match (self, kind) {
            (_, Kind::Direct) => (None, None),
            (Self::NewConnections, Kind::Balancer) => (Some(Kind::Direct), Some(0.97)),
            (Self::Requests, Kind::Balancer) => (Some(Kind::Redirect), Some(0.97)),
            (Self::P99, Kind::Balancer) => (Some(Kind::Redirect), Some(1.1)),
            (Self::P50 | Self::Throughput, Kind::Balancer) => (Some(Kind::Redirect), None),
            (Self::CpuNewConnection | Self::CpuRequest, Kind::Balancer) => {
                (Some(Kind::Haproxy), Some(0.27))
            }
            _ => (Some(Kind::Direct), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_a_target_needs_a_peer() {
        let lines = Metric::lines();
        let mut names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        for name in [
            "app/new-connections/direct",
            "app/requests/redirect",
            "app/p99/lb",
            "app/cpu-new-connection/nftables",
            "app/cpu-request/haproxy",
        ] {
            assert!(names.contains(&name), "{names:?}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), lines.len());
        let targets = lines.iter().filter(|line| line.target.is_some());
        assert!(
            targets
                .into_iter()
                .all(|line| line.peer.is_some() && line.kind == Kind::Balancer)
        );
    }
}
