//! Stage "schedule": a slot of the service, and the backend it names.

use core::ptr;

use lb_common::{
    abi::word::{BackendState, Slot, SlotRange},
    schedule,
    table::{self, Work},
};

use crate::{
    control::{self, Backend},
    maps::{CURSORS, SLOTS},
    ours::Packet,
    stats,
};

/// What a scheduler came to.
pub(crate) enum Picked {
    /// The flow's backend stands in the [`Work`].
    Backend,
    /// The slot's backend takes no new flows: the next slot may.
    TryNext,
    /// The service has no slots.
    Nothing,
}

/// The backend that a packet which opens a flow will most likely get: nobody's turn is taken.
#[inline(always)]
pub(crate) fn foresee(packet: &Packet, work: &Work) -> Option<Backend> {
    let range = slots(work)?;
    let position = if work.crowded {
        hashed_position(packet, 0, range)
    } else {
        // SAFETY: an aligned word of a map row.
        let turn = unsafe { ptr::read_volatile(&raw const (*CURSORS.get_ptr(work.service)?).next) };
        schedule::round_robin(turn, range.length)
    };
    Some(control::backend(slot(range, position)?.backend))
}

/// Picks a backend. A packet that opens a flow takes the cursor's next slot; one from the middle of an unknown
/// connection goes by its hash and leaves the rotation alone, and so does one that is to go `by_hash`.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
pub(crate) fn pick(packet: &Packet, attempt: u32, by_hash: bool, work: &mut Work) -> Picked {
    let Some(range) = slots(work) else {
        return Picked::Nothing;
    };
    let position = if packet.opens() && !by_hash {
        let Some(cursor) = CURSORS.get_ptr_mut(work.service) else {
            return Picked::Nothing;
        };
        // SAFETY: the row was just looked up, and `next` is an aligned word.
        let turn = unsafe { stats::fetch_add(&raw mut (*cursor).next, 1) };
        schedule::round_robin(turn, range.length)
    } else {
        hashed_position(packet, attempt, range)
    };
    let Some(slot) = slot(range, position) else {
        return Picked::Nothing;
    };
    let backend = control::backend(slot.backend);
    let state = backend.state();
    if state.flags & BackendState::ACCEPTS == 0 || state.generation != slot.generation {
        return Picked::TryNext;
    }
    work.backend_address = backend.address();
    work.backend_port = backend.port();
    work.backend = slot.backend;
    work.backend_generation = slot.generation;
    Picked::Backend
}

/// The service's slots in force; nothing where it has none.
#[inline(always)]
fn slots(work: &Work) -> Option<SlotRange> {
    let range = SlotRange::unpack(control::service(work.service).slots());
    (range.length != 0).then_some(range)
}

/// Where among them a packet falls by its hash.
#[inline(always)]
fn hashed_position(packet: &Packet, attempt: u32, range: SlotRange) -> u32 {
    schedule::by_hash(table::hash(&packet.key, 0), attempt, range.length)
}

/// The slot at a position of a range.
#[inline(always)]
fn slot(range: SlotRange, position: u32) -> Option<Slot> {
    let place = SLOTS.get_ptr(range.offset.wrapping_add(position))?;
    // SAFETY: an aligned word of a map row.
    Some(Slot::unpack(unsafe { ptr::read_volatile(place) }))
}
