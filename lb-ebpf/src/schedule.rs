//! Stage "schedule": a slot of the service, and the backend it names.

use core::ptr;

use lb_common::{
    abi::{
        BackendRow,
        word::{BackendState, Slot, SlotRange},
    },
    schedule,
    table::{self, Work},
};
use network_types::ip::IpProto;

use crate::{
    maps::{BACKENDS, CURSORS, SERVICES, SLOTS},
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

/// Picks a backend. A packet that opens a flow takes the cursor's next slot; one from the middle of an unknown
/// connection goes by its hash and leaves the rotation alone, and so does one `without_entry`.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
pub(crate) fn pick(packet: &Packet, attempt: u32, without_entry: bool, work: &mut Work) -> Picked {
    let Some(service) = SERVICES.get(work.service) else {
        return Picked::Nothing;
    };
    // SAFETY: an aligned word of a map row that is never unmapped.
    let range = SlotRange::unpack(unsafe { ptr::read_volatile(&raw const service.slots) });
    if range.length == 0 {
        return Picked::Nothing;
    }
    let opens = packet.key.protocol() == IpProto::Udp as u8 || packet.flags.opens();
    let position = if opens && !without_entry {
        let Some(cursor) = CURSORS.get_ptr_mut(work.service) else {
            return Picked::Nothing;
        };
        // SAFETY: the row was just looked up, and `next` is an aligned word.
        let turn = unsafe { stats::fetch_add(&raw mut (*cursor).next, 1) };
        schedule::round_robin(turn, range.length)
    } else {
        schedule::by_hash(table::hash(&packet.key, 0), attempt, range.length)
    };
    let Some(place) = SLOTS.get_ptr(range.offset.wrapping_add(position)) else {
        return Picked::Nothing;
    };
    // SAFETY: an aligned word of a map row.
    let slot = Slot::unpack(unsafe { ptr::read_volatile(place) });
    let Some(backend) = BACKENDS.get(u32::from(slot.backend)) else {
        return Picked::TryNext;
    };
    let state = state(backend);
    if state.flags & BackendState::ACCEPTS == 0 || state.generation != slot.generation {
        return Picked::TryNext;
    }
    let [.., a, b, c, d] = backend.address;
    work.backend_address = u32::from_ne_bytes([a, b, c, d]);
    work.backend_port = u16::from_ne_bytes(backend.port_be);
    work.backend = slot.backend;
    work.backend_generation = slot.generation;
    Picked::Backend
}

/// The backend's state in force.
#[inline(always)]
pub(crate) fn state(backend: &BackendRow) -> BackendState {
    // SAFETY: an aligned word of a map row that is never unmapped.
    BackendState::unpack(unsafe { ptr::read_volatile(&raw const backend.state) })
}
