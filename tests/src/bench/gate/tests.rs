//! Reports that pass and reports that don't.

use std::collections::BTreeMap;

use super::*;
use crate::bench::report::Run;

const FLOOR: f64 = 16.0;

fn report(rows: Vec<Row>) -> Report {
    Report {
        machine: String::new(),
        kernel: String::new(),
        commit: String::new(),
        date: String::new(),
        rows,
    }
}

/// A row of nanoseconds above the floor.
fn ns(name: &str, runs: &[f64]) -> Row {
    let run = |net: &f64| Run {
        value: FLOOR + net,
        floor: Some(FLOOR),
        peer: None,
    };
    let runs = runs.iter().map(run).collect();
    Row::new(name.to_owned(), Unit::Nanoseconds, runs, BTreeMap::new())
}

/// A row of rates and the peer's.
fn rate(name: &str, runs: &[(f64, f64)]) -> Row {
    let run = |(value, peer): &(f64, f64)| Run {
        value: *value,
        floor: None,
        peer: Some(*peer),
    };
    let (runs, unit) = (runs.iter().map(run).collect(), Unit::PacketsPerSecond);
    Row::new(name.to_owned(), unit, runs, BTreeMap::new())
}

/// A report of one row on a machine whose calibration costs so much.
fn one(calibration: f64, row: Row) -> Report {
    report(vec![ns(CALIBRATION, &[calibration; 2]), row])
}

fn judge(before: &Report, now: &Report) -> Judgement {
    Judgement::of(before, now, |_| true).unwrap()
}

#[test]
fn a_quarter_worse_is_the_limit() {
    let before = one(40.0, ns("hit/1", &[40.0, 40.1, 44.0]));
    let within = judge(&before, &one(40.0, ns("hit/1", &[49.5, 49.6, 60.0])));
    assert_eq!((within.faults().len(), within.compared), (0, 1));
    assert!(within.suspects().is_empty(), "{within:?}");
    let over = judge(&before, &one(40.0, ns("hit/1", &[51.0, 51.1, 52.0])));
    let faults = over.faults();
    assert!(
        faults.len() == 1 && faults[0].starts_with("hit/1: 51.000 where 40.000 was"),
        "{faults:?}"
    );
}

#[test]
fn better_is_no_fault_however_much() {
    let before = report(vec![
        ns(CALIBRATION, &[40.0]),
        ns("hit/1", &[40.0, 40.1]),
        rate("veth/share", &[(60.0, 100.0), (60.1, 100.0)]),
    ]);
    let now = report(vec![
        ns(CALIBRATION, &[40.0]),
        ns("hit/1", &[4.0, 4.1]),
        rate("veth/share", &[(99.0, 100.0), (98.0, 100.0)]),
    ]);
    let judgement = judge(&before, &now);
    assert!(judgement.suspects().is_empty(), "{judgement:?}");
    assert_eq!(judgement.compared, 2);
}

#[test]
fn one_quiet_run_among_disturbed_ones_is_enough() {
    let before = one(40.0, ns("hit/1", &[40.0, 40.1, 40.2]));
    let now = one(40.0, ns("hit/1", &[90.0, 120.0, 41.0, 300.0, 95.0]));
    assert!(judge(&before, &now).suspects().is_empty());
}

#[test]
fn a_lone_lucky_run_of_the_reference_is_a_suspect_and_no_fault() {
    let before = one(40.0, ns("hit/1", &[30.0, 41.0, 42.0]));
    let now = one(40.0, ns("hit/1", &[41.0, 41.1, 42.0]));
    let judgement = judge(&before, &now);
    assert_eq!(judgement.suspects(), ["hit/1"]);
    assert!(judgement.faults().is_empty(), "{judgement:?}");
}

#[test]
fn another_machine_is_compared_by_the_calibration() {
    let before = one(40.0, ns("hit/1", &[20.0, 20.1]));
    let slower = judge(&before, &one(80.0, ns("hit/1", &[40.0, 40.2])));
    assert!(slower.suspects().is_empty(), "{slower:?}");
    let worse = judge(&before, &one(80.0, ns("hit/1", &[55.0, 55.1])));
    assert_eq!(worse.faults().len(), 1);
    let hidden = judge(&before, &one(20.0, ns("hit/1", &[20.0, 20.1])));
    assert_eq!(hidden.faults().len(), 1, "a faster machine hides nothing");
}

#[test]
fn nanoseconds_without_a_calibration_are_an_error() {
    let bare = report(vec![ns("hit/1", &[20.0, 20.1])]);
    let calibrated = one(40.0, ns("hit/1", &[20.0, 20.1]));
    for (before, now) in [(&bare, &calibrated), (&calibrated, &bare)] {
        assert_eq!(
            Judgement::of(before, now, |name| name != CALIBRATION).err(),
            Some(Uncalibrated)
        );
    }
    let rates = report(vec![rate("veth/share", &[(60.0, 100.0)])]);
    assert_eq!(judge(&rates, &rates).compared, 1);
}

#[test]
fn a_rate_is_judged_by_its_best_beside_the_peers_best() {
    let before = report(vec![rate("veth/share", &[(60.0, 100.0), (59.0, 99.0)])]);
    // The run in which the peer was disturbed has the best ratio of all.
    let now = rate("veth/share", &[(45.0, 99.0), (45.0, 50.0), (44.0, 98.0)]);
    let judgement = judge(&before, &report(vec![now]));
    assert_eq!(judgement.faults().len(), 1, "{judgement:?}");
    let now = rate("veth/share", &[(55.0, 99.0), (20.0, 97.0), (54.0, 98.0)]);
    assert!(judge(&before, &report(vec![now])).suspects().is_empty());
}

#[test]
fn a_row_that_vanished_is_a_fault_and_a_new_one_is_not() {
    let before = one(40.0, ns("hit/1", &[20.0, 20.1]));
    let now = one(40.0, ns("hit/2", &[20.0, 20.1]));
    let judgement = judge(&before, &now);
    assert_eq!(judgement.suspects(), ["hit/1"]);
    assert_eq!(judgement.faults(), ["hit/1: has no figure any more"]);
    assert_eq!(
        (judgement.new, judgement.compared),
        (vec!["hit/2".to_owned()], 0)
    );
    let part = Judgement::of(&before, &now, |name| name != "hit/1").unwrap();
    assert!(part.faults().is_empty(), "it was not asked for");
}

#[test]
fn a_row_without_runs_has_no_figure() {
    let before = one(40.0, ns("hit/1", &[20.0, 20.1]));
    let empty = one(40.0, ns("hit/1", &[]));
    assert_eq!(judge(&before, &empty).suspects(), ["hit/1"]);
    let judgement = judge(&empty, &before);
    assert!(judgement.suspects().is_empty() && judgement.compared == 0);
}

#[test]
fn a_row_that_cost_nothing_may_not_begin_to_cost() {
    for nothing in [0.0, -0.2] {
        let before = one(40.0, ns("foreign/arp", &[nothing, nothing]));
        let as_before = judge(&before, &one(40.0, ns("foreign/arp", &[0.8, 0.8])));
        assert!(as_before.faults().is_empty(), "{as_before:?}");
        let judgement = judge(&before, &one(40.0, ns("foreign/arp", &[3.0, 3.0])));
        assert_eq!(judgement.faults().len(), 1, "{judgement:?}");
    }
}

#[test]
fn rows_that_wait_for_memory_have_more_room_and_not_any() {
    let before = one(40.0, ns("hit/500k", &[200.0, 201.0]));
    let within = judge(&before, &one(40.0, ns("hit/500k", &[280.0, 281.0])));
    assert!(within.suspects().is_empty(), "{within:?}");
    let over = judge(&before, &one(40.0, ns("hit/500k", &[310.0, 311.0])));
    assert_eq!(over.faults().len(), 1);
}

/// The row of ten thousand flows and what one line of as many takes.
fn ten_thousand(line: f64, net: f64) -> Report {
    report(vec![
        ns(CALIBRATION, &[40.0; 2]),
        ns("calibration/line-read/10k", &[line; 2]),
        ns("hit/nat/ipv4/tcp/forward/10k", &[net; 2]),
    ])
}

#[test]
fn memory_that_takes_longer_excuses_as_much_and_no_more() {
    let before = ten_thousand(22.0, 40.0);
    let excused = judge(&before, &ten_thousand(32.0, 62.0));
    assert!(excused.suspects().is_empty(), "{excused:?}");
    let too_much = judge(&before, &ten_thousand(32.0, 64.0));
    assert_eq!(
        too_much.suspects(),
        ["hit/nat/ipv4/tcp/forward/10k", "calibration/line-read/10k"],
        "what excuses is measured again as well"
    );
    assert_eq!(too_much.faults().len(), 1, "{too_much:?}");
    let faster = judge(&before, &ten_thousand(12.0, 49.0));
    assert!(
        faster.suspects().is_empty(),
        "a line that takes less asks for nothing: {faster:?}"
    );
}

#[test]
fn more_runs_clear_a_suspect_and_not_a_culprit() {
    let before = one(40.0, ns("hit/1", &[40.0, 40.1]));
    let mut disturbed = one(40.0, ns("hit/1", &[70.0, 71.0]));
    assert_eq!(judge(&before, &disturbed).faults().len(), 1);
    disturbed.add_runs(vec![ns("hit/1", &[41.0, 42.0])]);
    assert_eq!(disturbed.row("hit/1").unwrap().runs.len(), 4);
    assert!(judge(&before, &disturbed).suspects().is_empty());
    let mut slow = one(40.0, ns("hit/1", &[70.0, 71.0]));
    slow.add_runs(vec![ns("hit/1", &[69.0, 72.0]), ns("hit/2", &[1.0])]);
    assert_eq!(judge(&before, &slow).faults().len(), 1);
    assert!(slow.row("hit/2").is_some());
}
