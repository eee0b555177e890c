//! Hands out gratuitous ARP when it is due, as fast as it is taken and no faster: thousands of VIPs are due at once, and
//! each of them has its turn.

use std::{
    collections::{BTreeSet, VecDeque},
    future::pending,
    net::Ipv4Addr,
    time::Instant,
};

use tokio::{
    sync::mpsc,
    time::{Instant as Moment, sleep_until},
};

use super::{
    Announcement, arp,
    schedule::{Place, Schedule},
};

/// What is to be announced, and to whom it is given.
#[derive(Debug)]
pub(super) struct Announcer {
    schedule: Schedule,
    /// Due, and not yet taken; each address once at most.
    due: VecDeque<(Place, Ipv4Addr)>,
    out: mpsc::Sender<Announcement>,
}

impl Announcer {
    pub(super) fn new(out: mpsc::Sender<Announcement>) -> Self {
        Self {
            schedule: Schedule::default(),
            due: VecDeque::new(),
            out,
        }
    }

    /// Takes where the addresses are at the moment, `None` while the interface is down or gone.
    pub(super) fn set(
        &mut self,
        place: Option<Place>,
        addresses: &BTreeSet<Ipv4Addr>,
        now: Instant,
    ) {
        self.schedule.set(place, addresses, now);
        self.due
            .retain(|(at, address)| Some(*at) == place && addresses.contains(address));
    }

    /// Announces nothing any more.
    pub(super) fn stop(&mut self) {
        self.schedule = Schedule::default();
        self.due.clear();
    }

    /// Waits until something is due and there is room for it, and hands it out. Nothing is lost where it is dropped
    /// before.
    pub(super) async fn hand_out(&mut self) {
        if self.due.is_empty() {
            match self.schedule.next() {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
            self.due.extend(self.schedule.due(Moment::now().into_std()));
        }
        let Ok(permit) = self.out.reserve().await else {
            // Nobody sends them any more, which ends the task by other means.
            return pending().await;
        };
        if let Some((Place { ifindex, mac }, address)) = self.due.pop_front() {
            permit.send(Announcement {
                ifindex,
                address,
                frame: arp::announcement(address, mac),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use tokio::time::{sleep, timeout};

    use super::*;

    const PLACE: Place = Place {
        ifindex: 2,
        mac: [2; 6],
    };

    fn vips(count: u32) -> BTreeSet<Ipv4Addr> {
        let first = Ipv4Addr::new(192, 0, 2, 0).to_bits();
        (first..first + count).map(Ipv4Addr::from_bits).collect()
    }

    /// Hands out until nothing comes for a while; gives how often each address came.
    async fn counts(
        announcer: &mut Announcer,
        out: &mut mpsc::Receiver<Announcement>,
        pause: Duration,
    ) -> BTreeMap<Ipv4Addr, usize> {
        let mut taken = BTreeMap::new();
        let hand_out = async {
            loop {
                announcer.hand_out().await;
            }
        };
        let take = async {
            while let Ok(Some(one)) = timeout(Duration::from_mins(1), out.recv()).await {
                *taken.entry(one.address).or_default() += 1;
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = hand_out => {}
            () = take => {}
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_thousand_vips_each_is_announced_thrice_however_slowly_they_are_taken() {
        for pause in [Duration::ZERO, Duration::from_millis(20)] {
            let (out, mut heard) = mpsc::channel(256);
            let mut announcer = Announcer::new(out);
            announcer.set(Some(PLACE), &vips(1_000), Moment::now().into_std());
            let counts = counts(&mut announcer, &mut heard, pause).await;
            assert_eq!(counts.len(), 1_000);
            assert!(counts.values().all(|times| *times == 3), "{counts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_longer_held_is_not_announced_though_it_was_due() {
        let (out, mut heard) = mpsc::channel(10);
        let mut announcer = Announcer::new(out);
        announcer.set(Some(PLACE), &vips(20), Moment::now().into_std());
        announcer.hand_out().await;
        announcer.set(Some(PLACE), &vips(5), Moment::now().into_std());
        let left = counts(&mut announcer, &mut heard, Duration::ZERO).await;
        assert_eq!(left.keys().copied().collect::<BTreeSet<_>>(), vips(5));
        announcer.set(None, &vips(5), Moment::now().into_std());
        announcer.stop();
        let wait = timeout(Duration::from_mins(1), announcer.hand_out());
        assert!(wait.await.is_err(), "it was stopped");
    }
}
