//! The flow table in the kernel while two CPUs make, use, end and evict flows in the same few buckets.

use std::time::Duration;

use anyhow::Result;
use lb_common::table::Event;
use lb_tests::race::{Race, Report, Track};

/// How long all races take together.
const TIME: Duration = Duration::from_mins(1);

/// What may be counted beside packets that left.
const EXPECTED: [&str; 3] = ["transmit", "pass", "flow_contended"];

fn run(race: Race, entries: u32, share: u32) -> Result<(Track, Report)> {
    let mut track = Track::new(lb_userspace::OBJECT, entries)?;
    let report = track.run(race, TIME / share)?;
    let mut counted = track.program.verdicts();
    counted.retain(|(_, count)| *count > 0);
    eprintln!("{entries} entries: {report}; {counted:?}");
    assert_eq!(report.faults, Vec::<String>::new(), "{report}");
    let other: Vec<_> = counted
        .into_iter()
        .filter(|(name, _)| !EXPECTED.contains(name))
        .collect();
    assert_eq!(other, [], "{report}");
    Ok((track, report))
}

#[test]
fn no_packet_leaves_by_another_flows_recipe_while_flows_crowd_a_tiny_table() -> Result<()> {
    for entries in [16, 64] {
        let (track, report) = run(Race::Crowd, entries, 4)?;
        // Below this nothing was shown.
        assert!(report.packets > 300_000, "{report}");
        assert!(report.made > 20_000 && report.reverse > 10_000, "{report}");
        let evicted = track.program.events(Event::EvictedUnanswered);
        assert!(evicted > 1_000, "{evicted} evictions, {report}");
    }
    Ok(())
}

#[test]
fn two_cpus_that_make_one_flow_at_once_use_one_backend() -> Result<()> {
    let (track, report) = run(Race::Pace, 4_096, 2)?;
    assert!(report.compared > 5_000, "{report}");
    let lost = track.program.events(Event::LostInsert);
    eprintln!("{lost} inserts came second");
    assert!(lost > 20, "{lost} inserts came second: {report}");
    Ok(())
}
