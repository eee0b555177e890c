//! When to announce. Pure; time is passed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// How often an address is announced: a frame may be lost.
const TIMES: u8 = 3;
/// Between two announcements of an address.
const PAUSE: Duration = Duration::from_secs(1);

/// Where addresses are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ifindex: u32,
    pub(super) mac: [u8; 6],
}

/// Announces an address when it is new, and all of them when the interface came up, came back, or has another MAC
/// address.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    place: Option<Place>,
    /// Announcements that are left, and when the next one is.
    addresses: BTreeMap<Ipv4Addr, (u8, Instant)>,
}

impl Schedule {
    /// Takes where the addresses are at the moment, `None` while the interface is down or gone.
    pub(super) fn set(
        &mut self,
        place: Option<Place>,
        addresses: &BTreeSet<Ipv4Addr>,
        now: Instant,
    ) {
        if self.place != place {
            self.addresses.clear();
            self.place = place;
        }
        if place.is_some() {
            self.addresses
                .retain(|address, _| addresses.contains(address));
            for address in addresses {
                self.addresses.entry(*address).or_insert((TIMES, now));
            }
        }
    }

    /// The addresses to announce now, and where.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Place, Ipv4Addr)> {
        let Some(place) = self.place else {
            return Vec::new();
        };
        let mut due = Vec::new();
        for (address, (left, at)) in &mut self.addresses {
            if *left > 0 && *at <= now {
                due.push((place, *address));
                *left -= 1;
                *at = now + PAUSE;
            }
        }
        due
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.addresses
            .values()
            .filter(|(left, _)| *left > 0)
            .map(|(_, at)| *at)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        ifindex: 2,
        mac: [2; 6],
    };
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

    /// What is announced in each half of a second.
    fn run(schedule: &mut Schedule, from: Instant, halves: u64) -> Vec<usize> {
        (0..halves)
            .map(|half| schedule.due(from + Duration::from_millis(500 * half)).len())
            .collect()
    }

    #[test]
    fn an_address_is_announced_thrice_with_a_second_between() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set(Some(PLACE), &BTreeSet::from([VIP]), now);
        assert_eq!(run(&mut schedule, now, 8), [1, 0, 1, 0, 1, 0, 0, 0]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_new_address_is_announced_alone() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.set(Some(PLACE), &BTreeSet::from([VIP]), now);
        run(&mut schedule, now, 8);
        schedule.set(Some(PLACE), &BTreeSet::from([VIP, OTHER]), now);
        assert_eq!(schedule.due(now), [(PLACE, OTHER)]);
    }

    #[test]
    fn all_are_announced_again_when_the_interface_is_back() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let both = BTreeSet::from([VIP, OTHER]);
        schedule.set(Some(PLACE), &both, now);
        run(&mut schedule, now, 8);
        schedule.set(None, &both, now);
        assert_eq!((schedule.due(now), schedule.next()), (vec![], None));
        let back = Place {
            ifindex: 9,
            ..PLACE
        };
        schedule.set(Some(back), &both, now);
        assert_eq!(schedule.due(now), [(back, VIP), (back, OTHER)]);
    }
}
