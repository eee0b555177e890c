//! Which backends packets leave to by an interface that is not of the configuration. Pure.

use std::collections::BTreeMap;

use crate::model::Model;

use super::{Observation, Reason};

/// Backends named in a line, at most.
const NAMED: usize = 5;

/// The backends that packets leave to by an interface which is not of the configuration, by that interface.
pub(crate) fn behind_other_interfaces(
    model: &Model,
    network: &Observation,
) -> BTreeMap<String, Vec<String>> {
    let mut behind: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for backend in model.pools.iter().flat_map(|pool| &pool.backends) {
        let way = network.ways.get(&backend.address.ip());
        let Some(Reason::OtherInterface { interface, .. }) =
            way.and_then(|way| way.reason.as_ref())
        else {
            continue;
        };
        let address = backend.address.to_string();
        let name = if backend.name == address {
            address
        } else {
            format!("{} ({address})", backend.name)
        };
        let names = behind.entry(interface.clone()).or_default();
        // One server may stand in several pools.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    behind
}

/// What a new configuration takes from backends that were reached before, in lines for people.
pub(crate) fn lost(
    before: &BTreeMap<String, Vec<String>>,
    after: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let lost = after.iter().filter_map(|(interface, names)| {
        let known = before.get(interface);
        let new: Vec<_> = names
            .iter()
            .filter(|name| known.is_none_or(|known| !known.contains(name)))
            .cloned()
            .collect();
        (!new.is_empty()).then(|| {
            format!(
                "WARNING: packets to {} leave by {interface}, which is not in [[interface]]: they take no new flows, and \
                 flows that they have stop\n   help: put {interface} back, or change the route",
                named(&new)
            )
        })
    });
    lost.collect()
}

/// `a, b and 3 more`.
pub(crate) fn named(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::testing::{address, model},
        neighbours::Resolution,
        plan::Hop,
    };

    /// Backends `first` to 8 of eight are behind `eth1`, which is not configured.
    fn network(first: u8) -> Observation {
        let way = |number: u8| {
            let address = address(number).ip();
            let interface = "eth1".to_owned();
            let reason = (number >= first).then_some(Reason::OtherInterface { address, interface });
            let hop = Hop::Keep { key: None };
            (
                address,
                Resolution {
                    hop,
                    reason,
                    source: None,
                },
            )
        };
        Observation {
            ways: (1..=8).map(way).collect(),
            ..Observation::default()
        }
    }

    #[test]
    fn those_that_are_lost_are_named_and_no_others() {
        let model = model(8);
        let before = behind_other_interfaces(&model, &network(7));
        let after = behind_other_interfaces(&model, &network(6));
        let lines = lost(&before, &after);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for word in ["to web6 (10.0.0.6:80) leave by eth1", "help: put eth1 back"] {
            assert!(lines[0].contains(word), "{lines:?}");
        }
        assert_eq!(lost(&after, &after), [""; 0]);
        assert_eq!(lost(&after, &before), [""; 0]);
    }

    #[test]
    fn many_are_a_few_and_a_number() {
        let all = behind_other_interfaces(&model(8), &network(1));
        let words = named(&all["eth1"]);
        assert!(words.ends_with("web5 (10.0.0.5:80) and 3 more"), "{words}");
    }
}
