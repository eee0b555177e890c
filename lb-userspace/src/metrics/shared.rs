//! One piece of work for all who ask for the same at the same time.

use std::time::Instant;

use tokio::sync::Mutex;

/// What was made last. Whoever asks gets something that was begun after he asked, so nothing is stale; and at most one is
/// made at a time, however many ask.
#[derive(Debug)]
pub(super) struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    /// The last one, where it was begun after this call; what `work` gives otherwise.
    pub(super) async fn get(&self, work: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((begun, made)) = &*last
            && *begun >= asked
        {
            return made.clone();
        }
        let begun = Instant::now();
        let made = work.await;
        *last = Some((begun, made.clone()));
        made
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn who_asks_meanwhile_shares_the_next_one_and_nobody_gets_an_old_one() {
        let shared = Arc::new(Shared::default());
        let count = Arc::new(AtomicU32::new(0));
        let ask = || {
            let (shared, count) = (Arc::clone(&shared), Arc::clone(&count));
            tokio::spawn(async move {
                let work = async {
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    for _ in 0..100 {
                        yield_now().await;
                    }
                    number
                };
                shared.get(work).await
            })
        };
        let first = ask();
        yield_now().await;
        let others: Vec<_> = (0..50).map(|_| ask()).collect();
        assert_eq!(first.await.unwrap(), 1);
        for other in others {
            assert_eq!(other.await.unwrap(), 2, "begun after it was asked for");
        }
        assert_eq!(ask().await.unwrap(), 3);

        // One who goes away while his is made leaves the next to make it.
        let gone = ask();
        yield_now().await;
        gone.abort();
        assert_eq!(ask().await.unwrap(), 5);
    }
}
