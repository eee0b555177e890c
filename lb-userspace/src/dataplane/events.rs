//! What the program tells the agent, as it happens.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd},
};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::{BackendId, NeighbourWanted};
use tokio::io::{Interest, unix::AsyncFd};

/// Records of the ring `EVENTS`.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self { ring: watch(ring)? })
    }

    /// Waits for packets that wait for a way; gives the rows of `BACKENDS` they are for.
    ///
    /// # Errors
    /// The ring can't be waited for.
    pub async fn neighbours_wanted(&mut self) -> io::Result<BTreeSet<BackendId>> {
        let mut guard = self.ring.readable_mut().await?;
        let mut wanted = BTreeSet::new();
        while let Some(record) = guard.get_inner_mut().next() {
            wanted.extend(backend(&record));
        }
        guard.clear_ready();
        Ok(wanted)
    }
}

/// Makes a ring something to wait for. Must be called inside a tokio runtime.
pub(super) fn watch<T: AsFd + AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `ring` owns its descriptor, which stays the same and open until it is dropped.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(io::Error::from)
}

fn backend(record: &[u8]) -> Option<BackendId> {
    const AT: usize = std::mem::offset_of!(NeighbourWanted, backend);
    let row = u32::from_ne_bytes(record.get(AT..AT + 4)?.try_into().ok()?);
    BackendId::new(u16::try_from(row).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_a_row() {
        assert_eq!(backend(&[7, 0, 0, 0, 0, 0, 0, 0]), BackendId::new(7));
        assert_eq!(backend(&[0; 8]), None);
        assert_eq!(backend(&[0, 0, 1, 0, 0, 0, 0, 0]), None);
        assert_eq!(backend(&[1, 0]), None);
    }
}
