//! The flow table of a [`Program`] as it lies in memory: entries with their places, ages, and what happened to it.

use anyhow::{Context, Result};
use aya::maps::Array;
use lb_common::{
    abi::{Cursor, FlowBucket, FlowEntry, FlowKey, PAIR, PairRow, Recipe, WAYS, field, pair},
    flow,
    table::Event,
};

use super::{Program, Row};

/// An entry in use.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its place.
    pub index: u32,
    /// The 5-tuple of the packets that it is for.
    pub key: FlowKey,
    /// What becomes of them.
    pub recipe: Recipe,
    /// The place of the other direction's.
    pub partner: u32,
}

fn age(entry: &mut FlowEntry, ticks: u32) {
    let word = &mut entry.words[field::SERVICE];
    *word = word.wrapping_sub(u64::from(ticks) << 32);
}

impl Program {
    /// Every entry in use, in the order of their places.
    ///
    /// # Errors
    /// Those of the map.
    pub fn entries(&mut self) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        let buckets = Array::<_, Row<FlowBucket>>::try_from(self.map("FLOWS")?)?;
        let mut index = 0;
        for bucket in buckets.iter() {
            for entry in bucket?.0.entries {
                if let Some((key, recipe)) = entry.read() {
                    held.push(Held {
                        index,
                        key,
                        recipe,
                        partner: u32::try_from(entry.words[field::PARTNER])?,
                    });
                }
                index += 1;
            }
        }
        Ok(held)
    }

    /// What is wrong with the table while no packet is on its way, in words: a key has one entry, the two entries of a
    /// flow name each other and agree, nothing is half written and no lock is held.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn table_faults(&mut self) -> Result<Vec<String>> {
        let entries = self.entries()?;
        let mut faults = Vec::new();
        for held in &entries {
            let same = entries.iter().filter(|other| other.key == held.key);
            if same.count() > 1 {
                faults.push(format!("a key with two entries: {held:?}"));
            }
            let partner = entries.iter().find(|other| other.index == held.partner);
            let whole = partner.is_some_and(|partner| {
                partner.key == flow::partner(&held.key, &held.recipe)
                    && partner.partner == held.index
                    && partner.recipe.is_reverse() != held.recipe.is_reverse()
                    && partner.recipe.backend() == held.recipe.backend()
            });
            if !whole {
                faults.push(format!("half a flow: {held:?}, and there {partner:?}"));
            }
        }
        for bucket in Array::<_, Row<FlowBucket>>::try_from(self.map("FLOWS")?)?.iter() {
            let entries = bucket?.0.entries;
            let odd = entries
                .iter()
                .filter(|entry| entry.words[field::TAG] & 1 == 1);
            faults.extend(odd.map(|entry| format!("half written: {entry:?}")));
        }
        let pairs = Array::<_, Row<PairRow>>::try_from(self.map("FLOW_PAIRS")?)?;
        for (number, row) in (0..).zip(pairs.iter()) {
            let row = row?.0;
            if row.flags & pair::HELD != 0 {
                faults.push(format!("the lock of pair {number} is held"));
            }
            for (index, print) in (number * PAIR..).zip(row.prints.to_le_bytes()) {
                let held = entries.iter().find(|held| held.index == index);
                if (print == 0) != held.is_none() {
                    faults.push(format!("print {print} of {held:?}, at {index}"));
                }
            }
        }
        Ok(faults)
    }

    /// Forgets every flow and whose turn it is, as if the program had just been loaded; replies without an entry stay.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn forget_flows(&mut self) -> Result<()> {
        let buckets = Array::<_, Row<FlowBucket>>::try_from(self.map("FLOWS")?)?.len();
        for bucket in 0..buckets {
            self.set("FLOWS", bucket, FlowBucket::default())?;
        }
        for pair in 0..buckets * WAYS / PAIR {
            self.set("FLOW_PAIRS", pair, PairRow::default())?;
        }
        let services = self.control.0.services.iter();
        let in_use: Vec<_> = (0..)
            .zip(services)
            .filter(|(_, service)| service.in_use != 0)
            .map(|(row, _)| row)
            .collect();
        for service in in_use {
            self.set("CURSORS", service, Cursor::default())?;
        }
        Ok(())
    }

    /// Lets time pass for every flow.
    ///
    /// # Errors
    /// Those of the map.
    pub fn age_flows(&mut self, ticks: u32) -> Result<()> {
        self.age_pairs(ticks)?;
        self.age_buckets("FLOWS", ticks)
    }

    /// Lets time pass for the replies without an entry.
    ///
    /// # Errors
    /// Those of the map.
    pub fn age_overflow(&mut self, ticks: u32) -> Result<()> {
        self.age_buckets("OVERFLOW", ticks)
    }

    fn age_buckets(&mut self, map: &str, ticks: u32) -> Result<()> {
        let mut buckets = Array::<_, Row<FlowBucket>>::try_from(self.map(map)?)?;
        for index in 0..buckets.len() {
            let mut bucket = buckets.get(&index, 0)?;
            for entry in &mut bucket.0.entries {
                age(entry, ticks);
            }
            buckets.set(index, bucket, 0)?;
        }
        Ok(())
    }

    /// Lets time pass for what pairs of buckets have said of when they may have room again.
    ///
    /// # Errors
    /// Those of the map.
    fn age_pairs(&mut self, ticks: u32) -> Result<()> {
        let mut pairs = Array::<_, Row<PairRow>>::try_from(self.map("FLOW_PAIRS")?)?;
        for number in 0..pairs.len() {
            let mut row = pairs.get(&number, 0)?;
            row.0.full_until = row.0.full_until.wrapping_sub(ticks);
            pairs.set(number, row, 0)?;
        }
        Ok(())
    }

    /// Takes the locks of all pairs of buckets, as another CPU at work there would, or gives them back.
    ///
    /// # Errors
    /// Those of the map.
    pub fn hold_locks(&mut self, held: bool) -> Result<()> {
        let mut pairs = Array::<_, Row<PairRow>>::try_from(self.map("FLOW_PAIRS")?)?;
        for number in 0..pairs.len() {
            let mut row = pairs.get(&number, 0)?;
            row.0.flags = row.0.flags & !pair::HELD | if held { pair::HELD } else { 0 };
            pairs.set(number, row, 0)?;
        }
        Ok(())
    }

    /// Lets time pass for both entries of one flow, by the 5-tuple of its client.
    ///
    /// # Errors
    /// Those of the map, or where the flow has no entry.
    pub fn age_flow(&mut self, key: &FlowKey, ticks: u32) -> Result<()> {
        let entries = self.entries()?;
        let held = entries.iter().find(|held| held.key == *key);
        let held = held.with_context(|| format!("no entry of {key:?}"))?;
        self.age_pairs(ticks)?;
        for index in [held.index, held.partner] {
            self.change(index, |entry| age(entry, ticks))?;
        }
        Ok(())
    }

    fn change(&mut self, index: u32, how: impl Fn(&mut FlowEntry)) -> Result<()> {
        let mut buckets = Array::<_, Row<FlowBucket>>::try_from(self.map("FLOWS")?)?;
        let mut bucket = buckets.get(&(index / WAYS), 0)?;
        how(&mut bucket.0.entries[(index % WAYS) as usize]);
        Ok(buckets.set(index / WAYS, bucket, 0)?)
    }

    /// How often an event of the table was counted, over all CPUs.
    #[must_use]
    pub fn events(&self, event: Event) -> u64 {
        self.counters.table()[event as usize]
    }
}
