//! Rows of results, and what comes of them.

use proptest::prelude::*;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn outcome(passed: bool) -> Result<(), Failed> {
    if passed {
        Ok(())
    } else {
        Err("connection refused".into())
    }
}

fn timeout() -> Result<(), Failed> {
    Err(Failed::Timeout("timed out after 1 s".into()))
}

/// Feeds results, `+` for a pass, `-` for a bad answer and `t` for a timeout; gives `U` and `D` where the state changed
/// and `.` where not.
fn trace(initial: Option<bool>, rise: u32, fall: u32, results: &str) -> String {
    let mut state = State::new(initial, rise, fall, NOW);
    let step = |result| {
        let outcome = match result {
            't' => timeout(),
            answer => outcome(answer == '+'),
        };
        match state.observe(&outcome, NOW) {
            None => '.',
            Some(Transition { up: true, .. }) => 'U',
            Some(Transition { up: false, .. }) => 'D',
        }
    };
    results.chars().map(step).collect()
}

#[test]
fn the_first_answer_decides_where_nothing_is_known() {
    assert_eq!(trace(None, 3, 3, "+"), "U");
    assert_eq!(trace(None, 3, 3, "-"), "D");
    assert_eq!(trace(None, 2, 3, "-++"), "D.U");
}

#[test]
fn a_timeout_decides_nothing_alone_where_nothing_is_known() {
    assert_eq!(trace(None, 2, 3, "ttt"), "..D");
    assert_eq!(trace(None, 2, 3, "t+"), ".U");
    assert_eq!(trace(None, 2, 3, "t-"), ".D");
    assert_eq!(trace(None, 2, 1, "t"), "D");
    assert_eq!(trace(Some(true), 2, 3, "t-tt"), "..D.");
    let mut state = State::new(None, 2, 3, NOW);
    state.observe(&timeout(), NOW);
    assert_eq!(
        (state.is_up(), state.reason()),
        (None, "timed out after 1 s")
    );
    state.observe(&timeout(), NOW);
    assert_eq!(state.reason(), "timed out after 1 s (2 checks failed)");
}

#[test]
fn what_was_adopted_holds_until_enough_results_speak_against_it() {
    assert_eq!(trace(Some(true), 2, 3, "---"), "..D");
    assert_eq!(trace(Some(true), 2, 3, "+--+---"), "......D");
    assert_eq!(trace(Some(false), 2, 3, "-+-++"), "....U");
}

#[test]
fn only_consecutive_results_count() {
    assert_eq!(trace(Some(true), 2, 3, "--+--+--+---"), "...........D");
    assert_eq!(trace(Some(false), 2, 3, "+-+-+-++"), ".......U");
    assert_eq!(trace(Some(true), 1, 1, "-+-+"), "DUDU");
}

#[test]
fn a_transition_says_why_and_since_when() {
    let mut state = State::new(Some(true), 2, 2, NOW);
    assert_eq!(
        (state.is_up(), state.reason(), state.since()),
        (Some(true), "was up when the agent started", NOW)
    );
    let later = NOW + Duration::from_secs(5);
    assert_eq!(state.observe(&outcome(false), NOW), None);
    let transition = state.observe(&outcome(false), later).unwrap();
    assert_eq!(
        transition,
        Transition {
            up: false,
            reason: "connection refused (2 checks failed)".into()
        }
    );
    assert_eq!(
        (state.reason(), state.since()),
        (transition.reason.as_str(), later)
    );
    state.observe(&outcome(true), later);
    assert_eq!(
        state.observe(&outcome(true), later).unwrap().reason,
        "2 checks passed"
    );
}

#[test]
fn what_was_adopted_is_confirmed_by_the_first_result_that_agrees() {
    let later = NOW + Duration::from_secs(5);
    for (up, reason) in [(true, "check passed"), (false, "connection refused")] {
        let mut state = State::new(Some(up), 2, 2, NOW);
        state.observe(&outcome(!up), later);
        assert!(state.reason().ends_with("when the agent started"));
        assert_eq!(state.observe(&outcome(up), later), None);
        assert_eq!((state.reason(), state.since()), (reason, NOW));
    }
}

#[test]
fn new_thresholds_keep_the_count() {
    let mut state = State::new(Some(true), 2, 5, NOW);
    state.observe(&outcome(false), NOW);
    state.observe(&outcome(false), NOW);
    state.set_thresholds(2, 3);
    assert!(state.observe(&outcome(false), NOW).is_some());
}

#[test]
fn a_tally_is_what_the_report_shows() {
    let mut tally = Tally::default();
    let mut result = CheckResult {
        pool: "web".into(),
        backend: "10.0.0.1:80".parse().unwrap(),
        outcome: Ok(()),
        duration: Duration::from_millis(2),
    };
    tally.record(&result);
    result.outcome = outcome(false);
    tally.record(&result);
    let report = tally.report();
    assert_eq!(
        (report.passed, report.failed, report.last.as_str()),
        (1, 1, "connection refused")
    );
    assert!((report.last_duration_seconds - 0.002).abs() < 1e-9);
}

#[test]
fn timeouts_that_decided_nothing_are_no_part_of_the_reason() {
    let mut state = State::new(None, 2, 3, NOW);
    for _ in 0..2 {
        assert_eq!(state.observe(&timeout(), NOW), None);
    }
    let transition = state.observe(&outcome(true), NOW).unwrap();
    assert_eq!(
        (transition.up, transition.reason.as_str()),
        (true, "check passed")
    );
    let mut state = State::new(None, 2, 3, NOW);
    assert_eq!(state.observe(&timeout(), NOW), None);
    let transition = state.observe(&outcome(false), NOW).unwrap();
    assert_eq!(
        (transition.up, transition.reason.as_str()),
        (false, "connection refused (2 checks failed)"),
        "both have failed"
    );
}

proptest! {
    /// Against the definition, written down plainly: the state changes where the last `n` results all speak against it.
    #[test]
    fn it_changes_exactly_when_the_last_results_agree(
        initial in proptest::option::of(any::<bool>()),
        rise in 1_u32..6,
        fall in 1_u32..6,
        results in proptest::collection::vec(prop_oneof![Just('+'), Just('-'), Just('t')], 0..60),
    ) {
        let mut state = State::new(initial, rise, fall, NOW);
        let mut up = initial;
        let mut since_change = 0;
        for (index, result) in results.iter().copied().enumerate() {
            let since = &results[since_change..=index];
            let last = |count: u32, wanted: &dyn Fn(char) -> bool| {
                let from = since.len().checked_sub(count as usize);
                from.is_some_and(|from| since[from..].iter().all(|result| wanted(*result)))
            };
            let wanted = match up {
                None if result == 't' => last(fall, &|result| result == 't').then_some(false),
                None => Some(result == '+'),
                Some(true) => last(fall, &|result| result != '+').then_some(false),
                Some(false) => last(rise, &|result| result == '+').then_some(true),
            };
            let outcome = if result == 't' { timeout() } else { outcome(result == '+') };
            let got = state.observe(&outcome, NOW).map(|transition| transition.up);
            prop_assert_eq!(got, wanted);
            if wanted.is_some() {
                up = wanted;
                since_change = index + 1;
            }
            prop_assert_eq!(state.is_up(), up);
        }
    }
}
