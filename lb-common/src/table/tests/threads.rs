//! Many threads for a while. What they may meet, `interleavings` shows one by one for a few.

use super::{Host, flows::*};
use crate::{flow::State, table::Search};

#[test]
fn threads_that_rewrite_few_buckets_never_show_a_foreign_recipe() {
    let host = &Host::new(8);
    let flows = 40;
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            scope.spawn(move || {
                let mut random = u64::from(thread) + 1;
                for step in 0..60_000u32 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let port = u16::try_from((random >> 33) % flows).unwrap() + 1;
                    let key = client(port, TCP);
                    match lookup(&host, &key) {
                        Search::Hit(_, recipe, tag) => {
                            // The VIP's flows carry their port in the backend's row, below its random part.
                            assert_eq!(recipe.backend() & 0xff, port, "another flow's recipe");
                            if step % 3 == 0 {
                                let backend = port | (random >> 50) as u16 & 0x700;
                                insert(
                                    &host,
                                    &key,
                                    tag,
                                    &binding(backend, State::Closed, step / 100),
                                );
                            }
                        }
                        Search::Miss => {
                            insert(&host, &key, 0, &binding(port, State::Closed, step / 100));
                        }
                        Search::Unstable => {}
                    }
                }
            });
        }
    });
    host.assert_sound();
    assert!(!host.entries().is_empty());
}
