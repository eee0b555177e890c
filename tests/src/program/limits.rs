//! What a CPU may do only so often, and the events that reach the agent.

use anyhow::Result;
use aya::maps::{PerCpuArray, PerCpuValues, RingBuf};
use lb_common::abi::{MAX_RATE_LIMITS, NeighbourWanted, RateWindow};

use super::{Program, Row};

impl Program {
    /// Gives every CPU its whole allowance back.
    ///
    /// # Errors
    /// Those of the map.
    pub fn allow_all(&mut self) -> Result<()> {
        self.change_limits(|window| window.sent = 0)
    }

    /// Lets time pass for the allowances of every CPU.
    ///
    /// # Errors
    /// Those of the map.
    pub fn age_limits(&mut self, ticks: u32) -> Result<()> {
        self.change_limits(|window| window.since = window.since.wrapping_sub(ticks))
    }

    fn change_limits(&mut self, how: impl Fn(&mut RateWindow)) -> Result<()> {
        let mut limits = PerCpuArray::<_, Row<RateWindow>>::try_from(self.map("RATE_LIMITS")?)?;
        for limit in 0..MAX_RATE_LIMITS {
            let mut windows: Vec<_> = limits.get(&limit, 0)?.iter().copied().collect();
            for window in &mut windows {
                how(&mut window.0);
            }
            limits.set(limit, PerCpuValues::try_from(windows)?, 0)?;
        }
        Ok(())
    }

    /// Backends to which packets waited for a way, an entry for each event since the last call.
    ///
    /// # Errors
    /// Those of the map, or of an event that is none.
    pub fn wanted(&mut self) -> Result<Vec<u32>> {
        let mut events = RingBuf::try_from(self.map("EVENTS")?)?;
        let mut backends = Vec::new();
        while let Some(event) = events.next() {
            let event: [u8; size_of::<NeighbourWanted>()] = (*event).try_into()?;
            backends.push(u32::from_ne_bytes([event[0], event[1], event[2], event[3]]));
        }
        Ok(backends)
    }
}
