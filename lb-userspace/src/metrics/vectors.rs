//! Vectors of series that live for one scrape.

use prometheus::{
    GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, GenericCounterVec, GenericGaugeVec},
};

use crate::status::Traffic;

/// Makes vectors that are gathered once: filled, then thrown away with the registry.
pub(super) trait Make {
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error>;
    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error>;
    fn times(&self, name: &str, help: &str, labels: &[&str])
    -> Result<GaugeVec, prometheus::Error>;
}

impl Make for Registry {
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        registered(self, GenericCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        registered(self, GenericGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn times(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        registered(self, GenericGaugeVec::new(Opts::new(name, help), labels)?)
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    vector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(vector.clone()))?;
    Ok(vector)
}
/// The counters of something that has traffic.
pub(super) struct TrafficVecs {
    packets: IntCounterVec,
    bytes: IntCounterVec,
    new_flows: IntCounterVec,
}

impl TrafficVecs {
    pub(super) fn new(
        registry: &Registry,
        what: &str,
        labels: &[&str],
    ) -> Result<Self, prometheus::Error> {
        let directed: Vec<&str> = labels.iter().copied().chain(["direction"]).collect();
        let per = format!("a {what}, forward (towards backends) or reverse (towards clients)");
        Ok(Self {
            packets: registry.counters(
                &format!("lb_{what}_packets_total"),
                &format!("Packets of {per}."),
                &directed,
            )?,
            bytes: registry.counters(
                &format!("lb_{what}_bytes_total"),
                &format!("Bytes of {per}, whole frames as received."),
                &directed,
            )?,
            new_flows: registry.counters(
                &format!("lb_{what}_new_flows_total"),
                &format!("Flows made for a {what}."),
                labels,
            )?,
        })
    }

    pub(super) fn add(&self, labels: &[&str], traffic: &Traffic) {
        let directed = |direction| {
            labels
                .iter()
                .copied()
                .chain([direction])
                .collect::<Vec<_>>()
        };
        let (forward, reverse) = (directed("forward"), directed("reverse"));
        self.packets
            .with_label_values(&forward)
            .inc_by(traffic.forward_packets);
        self.packets
            .with_label_values(&reverse)
            .inc_by(traffic.reverse_packets);
        self.bytes
            .with_label_values(&forward)
            .inc_by(traffic.forward_bytes);
        self.bytes
            .with_label_values(&reverse)
            .inc_by(traffic.reverse_bytes);
        self.new_flows
            .with_label_values(labels)
            .inc_by(traffic.new_flows);
    }
}
