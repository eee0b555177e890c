//! More connections at once than the flow table has room for.

use anyhow::{Context, Result};
use lb_tests::agent::Config;
use lb_tests::agent::config::Check;
use lb_tests::http;
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

/// The smallest table, with room for 512 flows.
const ENTRIES: u32 = 1_024;
/// Connections that are open at once.
const CONNECTIONS: usize = 1_500;

#[test]
fn connections_beyond_the_tables_room_are_served() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let topology = Topology::new(arms, 3)?;
        let mut config = Config::web(&topology, Some(Check::http().patient()));
        config.flow_entries = Some(ENTRIES);
        let web = Web::with_config(topology, &config)?;
        let exchanges = web.client().crowd(CONNECTIONS)?;
        let failures = http::failures(&exchanges);
        assert!(failures.is_empty(), "{arms:?}: {failures:#?}");
        let page = web.agent.http("/metrics")?.body;
        let overflows: f64 = page
            .lines()
            .find_map(|line| line.strip_prefix(r#"lb_flow_table_events_total{event="overflow"} "#))
            .context("no overflows on the page")?
            .parse()?;
        assert!(
            overflows > 1_000.0,
            "{arms:?}: {overflows} packets without an entry"
        );
        for backend in ["web0", "web1", "web2"] {
            web.agent.wait_for_state("www", backend, "up")?;
        }
    }
    Ok(())
}
