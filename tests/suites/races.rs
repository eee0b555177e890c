//! The flow table in the kernel while two CPUs make, use, end and evict flows in the same few buckets.
//!
//! How much happens in a second is a matter of the machine, and of who else has its CPUs. So a race goes on until enough has
//! happened, and for its time at least.

use std::time::{Duration, Instant};

use anyhow::Result;
use lb_common::table::Event;
use lb_tests::race::{Race, Report, Track};

/// How long all races take together, at least.
const TIME: Duration = Duration::from_mins(1);
/// How long one may go on until enough has happened.
const PATIENCE: Duration = Duration::from_mins(2);

/// What may be counted beside packets that left.
const EXPECTED: [&str; 3] = ["transmit", "pass", "flow_contended"];

/// Races until it is `enough`; below that nothing was shown.
fn run(
    race: Race,
    entries: u32,
    share: u32,
    enough: impl Fn(&Track, &Report) -> bool,
) -> Result<()> {
    let mut track = Track::new(lb_userspace::OBJECT, entries)?;
    let start = Instant::now();
    let mut report = track.run(race, TIME / share)?;
    // Where no flow is made any more, nothing will happen.
    let mut made = 0;
    while report.faults.is_empty()
        && !enough(&track, &report)
        && report.made > made
        && start.elapsed() < PATIENCE
    {
        made = report.made;
        report = track.go_on(TIME / share)?;
    }
    let mut counted = track.program.verdicts();
    counted.retain(|(_, count)| *count > 0);
    eprintln!("{entries} entries: {report}; {counted:?}");
    assert_eq!(report.faults, Vec::<String>::new(), "{report}");
    let other: Vec<_> = counted
        .into_iter()
        .filter(|(name, _)| !EXPECTED.contains(name))
        .collect();
    assert_eq!(other, [], "{report}");
    assert!(
        enough(&track, &report),
        "too little in {:?}: {report}",
        start.elapsed()
    );
    Ok(())
}

#[test]
fn no_packet_leaves_by_another_flows_recipe_while_flows_crowd_a_tiny_table() -> Result<()> {
    for entries in [16, 64] {
        run(Race::Crowd, entries, 4, |track, report| {
            let evicted = track.program.events(Event::EvictedUnanswered);
            eprintln!("{evicted} evictions");
            report.packets > 300_000
                && report.made > 20_000
                && report.reverse > 10_000
                && evicted > 1_000
        })?;
    }
    Ok(())
}

#[test]
fn two_cpus_that_make_one_flow_at_once_use_one_backend() -> Result<()> {
    run(Race::Pace, 4_096, 2, |track, report| {
        let lost = track.program.events(Event::LostInsert);
        eprintln!("{lost} inserts came second");
        report.compared > 5_000 && lost > 20
    })
}
