//! Who is up: one state for each backend of each pool.

use std::{collections::BTreeMap, net::SocketAddr, time::SystemTime};

use crate::{
    health::{CheckResult, State, Tally},
    model::{Backend, Model, Pool},
    observe::BackendHealth,
};

/// States by pool and backend.
#[derive(Debug, Default)]
pub(super) struct Health {
    entries: BTreeMap<String, BTreeMap<SocketAddr, Entry>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    weight: u16,
    since: SystemTime,
    /// `None`: not checked, always up.
    checked: Option<(State, Tally)>,
}

/// A backend went up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) pool: String,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) up: bool,
    pub(super) reason: String,
}

impl Health {
    /// Makes the states those of the model. `initial` gives what is known of a backend that is new here: in rotation,
    /// out of it, or nothing.
    pub(super) fn reconfigure(
        &mut self,
        model: &Model,
        now: SystemTime,
        initial: impl Fn(&Pool, &Backend) -> Option<bool>,
    ) {
        let mut before = std::mem::take(&mut self.entries);
        for pool in &model.pools {
            let mut known = before.remove(&pool.name).unwrap_or_default();
            let entry = |backend: &Backend| {
                let known = known.remove(&backend.address);
                let since = known.as_ref().map_or(now, |entry| entry.since);
                let checked = match (&pool.check, known) {
                    (None, _) => None,
                    (
                        Some(check),
                        Some(Entry {
                            checked: Some((mut state, tally)),
                            ..
                        }),
                    ) => {
                        state.set_thresholds(check.rise, check.fall);
                        Some((state, tally))
                    }
                    // It was in rotation unchecked: the first check must not take it out before it has failed.
                    (
                        Some(check),
                        Some(Entry {
                            checked: None,
                            weight,
                            ..
                        }),
                    ) => Some((
                        State::new((weight != 0).then_some(true), check.rise, check.fall, now),
                        Tally::default(),
                    )),
                    (Some(check), None) => Some((
                        State::new(initial(pool, backend), check.rise, check.fall, now),
                        Tally::default(),
                    )),
                };
                (
                    backend.address,
                    Entry {
                        name: backend.name.clone(),
                        weight: backend.weight,
                        since,
                        checked,
                    },
                )
            };
            self.entries
                .insert(pool.name.clone(), pool.backends.iter().map(entry).collect());
        }
    }

    /// Takes in the result of a check; one of a backend that is no longer checked is nothing.
    pub(super) fn observe(&mut self, result: &CheckResult, now: SystemTime) -> Option<Change> {
        let entry = self
            .entries
            .get_mut(&result.pool)?
            .get_mut(&result.backend)?;
        let (state, tally) = entry.checked.as_mut()?;
        tally.record(result);
        let transition = state.observe(&result.outcome, now)?;
        entry.since = now;
        Some(Change {
            pool: result.pool.clone(),
            name: entry.name.clone(),
            address: result.backend,
            up: transition.up,
            reason: transition.reason,
        })
    }

    /// Whether a backend of a pool may take new flows as far as checks and weight say.
    pub(super) fn takes_flows(&self, pool: &str, backend: SocketAddr) -> bool {
        self.entries
            .get(pool)
            .and_then(|pool| pool.get(&backend))
            .is_some_and(|entry| {
                entry.weight != 0
                    && entry
                        .checked
                        .as_ref()
                        .is_none_or(|(state, _)| state.is_up() == Some(true))
            })
    }

    /// Whether some backend has had no result yet.
    pub(super) fn is_undecided(&self) -> bool {
        let entries = self.entries.values().flat_map(BTreeMap::values);
        entries
            .filter_map(|entry| entry.checked.as_ref())
            .any(|(state, _)| state.is_up().is_none())
    }

    /// For the report. `route` says what is wrong with the way to a backend.
    pub(super) fn report(
        &self,
        route: impl Fn(SocketAddr) -> Option<String>,
    ) -> BTreeMap<(String, SocketAddr), BackendHealth> {
        let mut reports = BTreeMap::new();
        for (pool, entries) in &self.entries {
            for (address, entry) in entries {
                reports.insert((pool.clone(), *address), entry.report(route(*address)));
            }
        }
        reports
    }
}

impl Entry {
    fn report(&self, route: Option<String>) -> BackendHealth {
        let (state, reason) = match &self.checked {
            None => ("unchecked", "the pool has no check"),
            Some((state, _)) => match state.is_up() {
                Some(true) => ("up", state.reason()),
                Some(false) => ("down", state.reason()),
                None => ("checking", state.reason()),
            },
        };
        let drained = (self.weight == 0).then(|| "weight 0: no new flows".to_owned());
        let reasons: Vec<_> = [Some(reason.to_owned()), drained, route]
            .into_iter()
            .flatten()
            .collect();
        BackendHealth {
            state,
            reason: reasons.join("; "),
            since: self
                .checked
                .as_ref()
                .map_or(self.since, |(state, _)| state.since()),
            checks: self.checked.as_ref().map(|(_, tally)| tally.report()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::testing::{address, model};

    fn result(outcome: Result<(), &str>) -> CheckResult {
        CheckResult {
            pool: "web".to_owned(),
            backend: address(1),
            outcome: outcome.map_err(Into::into),
            duration: Duration::from_millis(1),
        }
    }

    #[test]
    fn a_new_backend_takes_no_flows_before_its_first_result() {
        let mut health = Health::default();
        health.reconfigure(&model(2), SystemTime::UNIX_EPOCH, |_, _| None);
        assert!(!health.takes_flows("web", address(1)) && health.is_undecided());
        let change = health
            .observe(&result(Ok(())), SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!(change.up && health.takes_flows("web", address(1)));
        assert_eq!(
            health.observe(&result(Ok(())), SystemTime::UNIX_EPOCH),
            None
        );
    }

    #[test]
    fn an_adopted_backend_keeps_its_place() {
        let mut health = Health::default();
        health.reconfigure(&model(2), SystemTime::UNIX_EPOCH, |_, backend| {
            Some(backend.address == address(1))
        });
        assert!(health.takes_flows("web", address(1)) && !health.takes_flows("web", address(2)));
        assert!(!health.is_undecided());
    }

    #[test]
    fn a_reload_keeps_states_and_a_weight_of_zero_takes_out() {
        let mut health = Health::default();
        let mut model = model(2);
        health.reconfigure(&model, SystemTime::UNIX_EPOCH, |_, _| Some(true));
        model.pools[0].backends[0].weight = 0;
        health.reconfigure(&model, SystemTime::now(), |_, _| None);
        assert!(!health.takes_flows("web", address(1)) && health.takes_flows("web", address(2)));
        let report = health.report(|_| Some("no route".to_owned()));
        let drained = &report[&("web".to_owned(), address(1))];
        assert_eq!(
            (drained.state, drained.since),
            ("up", SystemTime::UNIX_EPOCH)
        );
        assert!(
            drained.reason.ends_with("weight 0: no new flows; no route"),
            "{}",
            drained.reason
        );
    }

    #[test]
    fn a_pool_that_begins_to_be_checked_stays_in_rotation() {
        let mut health = Health::default();
        let checked = model(1);
        let mut unchecked = model(1);
        unchecked.pools[0].check = None;
        health.reconfigure(&unchecked, SystemTime::UNIX_EPOCH, |_, _| None);
        assert!(health.takes_flows("web", address(1)));
        health.reconfigure(&checked, SystemTime::UNIX_EPOCH, |_, _| None);
        assert!(health.takes_flows("web", address(1)));
    }

    #[test]
    fn a_drained_backend_that_begins_to_be_checked_is_unknown() {
        let mut health = Health::default();
        let mut drained = model(1);
        drained.pools[0].check = None;
        drained.pools[0].backends[0].weight = 0;
        health.reconfigure(&drained, SystemTime::UNIX_EPOCH, |_, _| None);
        health.reconfigure(&model(1), SystemTime::UNIX_EPOCH, |_, _| None);
        assert!(!health.takes_flows("web", address(1)) && health.is_undecided());
    }

    #[test]
    fn a_report_says_since_when_and_what_the_checks_said() {
        let (start, later) = (
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + Duration::from_mins(1),
        );
        let mut health = Health::default();
        let checked = model(1);
        let mut unchecked = model(1);
        unchecked.pools[0].check = None;
        let row =
            |health: &Health| health.report(|_| None)[&("web".to_owned(), address(1))].clone();

        health.reconfigure(&unchecked, start, |_, _| None);
        health.reconfigure(&unchecked, later, |_, _| None);
        assert_eq!(row(&health).since, start, "nothing has changed");

        health.reconfigure(&checked, start, |_, _| Some(true));
        for _ in 0..3 {
            health.observe(&result(Err("refused")), later);
        }
        let checks = row(&health).checks.unwrap();
        assert_eq!((checks.passed, checks.failed), (0, 3));
        assert_eq!(checks.last, "refused");
        health.reconfigure(&unchecked, later, |_, _| None);
        assert_eq!(row(&health).since, later, "since it went down");
    }

    #[test]
    fn a_late_result_of_a_removed_backend_is_nothing() {
        let mut health = Health::default();
        assert_eq!(
            health.observe(&result(Err("refused")), SystemTime::UNIX_EPOCH),
            None
        );
    }
}
