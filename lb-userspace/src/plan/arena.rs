//! Where a new range of slots goes.

use lb_common::abi::{MAX_SLOTS, word::SlotRange};

/// The arena with what is taken of it.
pub(super) struct Arena {
    /// Sorted by offset.
    taken: Vec<SlotRange>,
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) free: u32,
    pub(super) longest: u32,
}

impl Arena {
    /// An arena in which these ranges are taken; they may overlap and be empty.
    pub(super) fn new(taken: impl IntoIterator<Item = SlotRange>) -> Self {
        let mut taken: Vec<_> = taken
            .into_iter()
            .filter(|range| range.length != 0)
            .collect();
        taken.sort_unstable_by_key(|range| (range.offset, range.length));
        Self { taken }
    }

    /// Takes the first gap of at least `length` slots.
    pub(super) fn take(&mut self, length: u32) -> Result<SlotRange, Room> {
        let gap = self.gaps().find(|gap| gap.length >= length);
        let Some(SlotRange { offset, .. }) = gap else {
            let (free, longest) = self
                .gaps()
                .fold((0, 0), |(free, longest): (u32, u32), gap| {
                    (free + gap.length, longest.max(gap.length))
                });
            return Err(Room { free, longest });
        };
        let range = SlotRange { offset, length };
        let place = self.taken.partition_point(|taken| taken.offset < offset);
        self.taken.insert(place, range);
        Ok(range)
    }

    fn gaps(&self) -> impl Iterator<Item = SlotRange> {
        let end = SlotRange {
            offset: MAX_SLOTS,
            length: 0,
        };
        self.taken
            .iter()
            .copied()
            .chain([end])
            .scan(0_u32, |reached, taken| {
                let gap = SlotRange {
                    offset: *reached,
                    length: taken.offset.min(MAX_SLOTS).saturating_sub(*reached),
                };
                *reached = (*reached).max(taken.offset.saturating_add(taken.length).min(MAX_SLOTS));
                Some(gap)
            })
            .filter(|gap| gap.length != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u32, length: u32) -> SlotRange {
        SlotRange { offset, length }
    }

    #[test]
    fn the_first_gap_that_fits_is_taken() {
        let mut arena = Arena::new([range(10, 5), range(0, 4)]);
        assert_eq!(arena.take(6), Ok(range(4, 6)));
        assert_eq!(arena.take(1), Ok(range(15, 1)));
        assert_eq!(arena.take(3), Ok(range(16, 3)));
    }

    #[test]
    fn overlapping_and_overlong_ranges_do_no_harm() {
        let mut arena = Arena::new([
            range(0, 10),
            range(2, 3),
            range(MAX_SLOTS - 1, 50),
            range(u32::MAX, 9),
        ]);
        assert_eq!(arena.take(1), Ok(range(10, 1)));
        assert_eq!(
            arena.take(MAX_SLOTS),
            Err(Room {
                free: MAX_SLOTS - 12,
                longest: MAX_SLOTS - 12
            })
        );
    }

    #[test]
    fn a_fragmented_arena_says_how_much_room_there_is() {
        let mut arena = Arena::new([range(100, MAX_SLOTS - 150)]);
        assert_eq!(
            arena.take(101),
            Err(Room {
                free: 150,
                longest: 100
            })
        );
        assert_eq!(arena.take(100), Ok(range(0, 100)));
        assert_eq!(arena.take(50), Ok(range(MAX_SLOTS - 50, 50)));
        assert_eq!(
            arena.take(1),
            Err(Room {
                free: 0,
                longest: 0
            })
        );
    }
}
