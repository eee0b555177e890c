//! From which backends no replies come back. Pure: `now` is a parameter.
//!
//! A server whose route to its clients leads past the balancer answers its checks, and its clients in vain: what it sends
//! them comes from an address that they never asked. Here it shows as flows that are made while no packet comes back.
//! A server that lives answers a TCP connection within milliseconds, if only to refuse it; of UDP nothing follows, since
//! there are services that never answer.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::abi::FlowCounters;

use crate::neighbours::Resolution;

/// So many flows without a reply are no accident.
const ENOUGH_FLOWS: u64 = 5;
/// And the first of them is as old as this: a reply that is under way between two readings is not missing.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// Remembers of each `Id` what came back. One reply disproves all; it then takes as many flows and as long as at first.
#[derive(Debug)]
pub(super) struct Replies<Id> {
    rows: BTreeMap<Id, Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    counters: FlowCounters,
    silence: Option<Silence>,
}

/// Flows without a packet that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// The first of them was made before this, and after the reading before it.
    pub(super) since: Instant,
    /// How many were made.
    pub(super) new_flows: u64,
}

impl<Id> Default for Replies<Id> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
        }
    }
}

impl<Id: Ord + Copy> Replies<Id> {
    /// Takes the counters as they are `now`; forgets what has none any more.
    pub(super) fn observe(&mut self, now: Instant, counters: &BTreeMap<Id, FlowCounters>) {
        let rows = counters.iter().map(|(id, counters)| {
            let silence = self.rows.get(id).and_then(|row| row.after(counters, now));
            let counters = *counters;
            (*id, Row { counters, silence })
        });
        self.rows = rows.collect();
    }

    /// Begins anew with one whose flows prove nothing.
    pub(super) fn forget(&mut self, id: &Id) {
        if let Some(row) = self.rows.get_mut(id) {
            row.silence = None;
        }
    }

    /// Those from which nothing comes back.
    pub(super) fn missing(&self, now: Instant) -> impl Iterator<Item = (Id, Silence)> {
        let silences = self.rows.iter();
        let silences = silences.filter_map(|(id, row)| Some((*id, row.silence?)));
        silences.filter(move |(_, silence)| {
            silence.new_flows >= ENOUGH_FLOWS
                && now.saturating_duration_since(silence.since) >= LONG_ENOUGH
        })
    }
}

impl Row {
    /// The silence that it is in by the next counters. Counters that fell are those of a new tenant.
    fn after(&self, next: &FlowCounters, now: Instant) -> Option<Silence> {
        let last = &self.counters;
        if next.reverse_packets != last.reverse_packets || next.new_flows < last.new_flows {
            return None;
        }
        // Flows whose packets could not be sent on wait for no reply.
        let sent = next.forward_packets.saturating_sub(last.forward_packets);
        match (next.new_flows - last.new_flows).min(sent) {
            0 => self.silence,
            more => {
                let so_far = self.silence.unwrap_or(Silence {
                    since: now,
                    new_flows: 0,
                });
                Some(Silence {
                    new_flows: so_far.new_flows + more,
                    ..so_far
                })
            }
        }
    }
}

/// What brings the replies of a backend of this address back, in words.
pub(super) fn help(backend: IpAddr, way: Option<&Resolution>) -> String {
    let (Some(source), Some(neighbour)) = (
        way.and_then(|way| way.source),
        way.and_then(|way| way.hop.neighbour()),
    ) else {
        return "make this machine the server's route to its clients".to_owned();
    };
    if neighbour.address == backend {
        format!("on the server `ip route replace default via {source}`")
    } else {
        format!(
            "make {source} the route to the clients on {}, behind which the server is",
            neighbour.address
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Hop, HopKey};

    const SECOND: Duration = Duration::from_secs(1);

    fn counters(new_flows: u64, forward_packets: u64, reverse_packets: u64) -> FlowCounters {
        FlowCounters {
            new_flows,
            forward_packets,
            reverse_packets,
            ..FlowCounters::default()
        }
    }

    /// Takes counters second by second; gives when the verdict was that nothing comes back, and for how many flows.
    fn verdicts(readings: &[(u64, u64, u64)]) -> Vec<Option<u64>> {
        let start = Instant::now();
        let mut replies = Replies::default();
        let mut verdicts = Vec::new();
        for (second, (flows, forward, reverse)) in (0..).zip(readings) {
            let now = start + SECOND * second;
            replies.observe(
                now,
                &BTreeMap::from([(7, counters(*flows, *forward, *reverse))]),
            );
            let missing = replies.missing(now).map(|(_, silence)| silence.new_flows);
            verdicts.push(missing.last());
        }
        verdicts
    }

    #[test]
    fn a_backend_without_replies_is_told_after_enough_flows_and_time_and_until_the_first_reply() {
        let silent: Vec<_> = (0..8).map(|second| (second, 3 * second, 9)).collect();
        // The first flow is seen in the second reading.
        let expected = [None, None, None, None, None, None, Some(6), Some(7)];
        assert_eq!(verdicts(&silent), expected);

        let mut answered = silent.clone();
        answered.extend([(8, 24, 10), (9, 27, 10), (13, 40, 10)]);
        assert_eq!(verdicts(&answered)[8..], [None; 3]);
    }

    #[test]
    fn few_flows_and_young_ones_prove_nothing() {
        let few: Vec<_> = (0..60).map(|second| (second.min(4), 90, 9)).collect();
        assert_eq!(verdicts(&few), [None; 60]);
        let young = [(0, 0, 9), (900, 900, 9), (900, 900, 9), (900, 900, 9)];
        assert_eq!(verdicts(&young), [None; 4]);
    }

    #[test]
    fn flows_that_were_there_before_the_first_reading_are_not_counted() {
        assert_eq!(verdicts(&[(500, 900, 0); 20]), [None; 20]);
    }

    #[test]
    fn a_verdict_stays_while_nobody_comes() {
        let mut readings = vec![(0, 0, 0), (5, 5, 0)];
        readings.extend([(5, 5, 0); 100]);
        assert_eq!(verdicts(&readings)[101], Some(5));
    }

    #[test]
    fn flows_that_could_not_be_sent_on_wait_for_no_reply() {
        let unsent: Vec<_> = (0..60).map(|second| (second, 0, 0)).collect();
        assert_eq!(verdicts(&unsent), [None; 60]);
    }

    #[test]
    fn a_new_tenant_of_a_row_begins_anew() {
        let mut readings: Vec<_> = (0..8).map(|second| (second, second, 0)).collect();
        assert_eq!(verdicts(&readings)[7], Some(7));
        readings.push((1, 1, 0));
        assert_eq!(verdicts(&readings)[8], None);
    }

    #[test]
    fn a_row_that_is_forgotten_or_gone_begins_anew() {
        let start = Instant::now();
        let mut replies = Replies::default();
        let rows = |flows| BTreeMap::from([(1, counters(flows, flows, 0))]);
        let missing =
            |replies: &Replies<u32>, seconds| replies.missing(start + SECOND * seconds).count();
        replies.observe(start, &rows(0));
        replies.observe(start, &rows(9));
        assert_eq!(missing(&replies, 5), 1);
        replies.forget(&1);
        assert_eq!(missing(&replies, 5), 0);
        replies.observe(start + SECOND * 6, &rows(20));
        assert_eq!((missing(&replies, 10), missing(&replies, 11)), (0, 1));
        replies.observe(start + SECOND * 12, &BTreeMap::new());
        assert_eq!(missing(&replies, 20), 0);
    }

    #[test]
    fn the_mend_is_a_command_on_the_server_or_names_its_gateway() {
        let (server, ours, gateway) = (
            IpAddr::from([10, 0, 0, 11]),
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from([10, 0, 0, 254]),
        );
        let way = |address, source| Resolution {
            hop: Hop::Keep {
                key: Some(HopKey {
                    interface: "eth1".to_owned(),
                    address,
                }),
            },
            source,
            reason: None,
        };
        assert_eq!(
            help(server, Some(&way(server, Some(ours)))),
            "on the server `ip route replace default via 10.0.0.1`"
        );
        assert_eq!(
            help(server, Some(&way(gateway, Some(ours)))),
            "make 10.0.0.1 the route to the clients on 10.0.0.254, behind which the server is"
        );
        let unknown = "make this machine the server's route to its clients";
        assert_eq!(help(server, Some(&way(server, None))), unknown);
        assert_eq!(help(server, None), unknown);
    }
}
