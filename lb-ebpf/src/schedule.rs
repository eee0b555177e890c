//! Stage "schedule": a slot of the service, and the backend it names.

use core::ptr;

use lb_common::{
    abi::{
        BackendRow, ServiceRow,
        word::{BackendState, Slot, SlotRange},
    },
    flow, schedule,
};
use network_types::ip::IpProto;

use crate::{
    maps::{BACKENDS, CURSORS, SLOTS},
    ours::Packet,
    stats,
};

/// The backend of a new flow.
pub(crate) struct Chosen {
    /// Its address.
    pub(crate) address: u32,
    /// Its port.
    pub(crate) port: u16,
    /// Its row and generation.
    pub(crate) slot: Slot,
}

/// Why no backend was chosen.
pub(crate) enum Refusal {
    /// The slot's backend takes no new flows: the next slot may.
    TryNext,
    /// The service has no slots.
    Empty,
}

/// Picks a backend. A packet that opens a flow takes the cursor's next slot; one from the middle of an unknown
/// connection goes by its hash and leaves the rotation alone.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
pub(crate) fn pick(
    service_id: u32,
    service: &ServiceRow,
    packet: &Packet,
    attempt: u32,
) -> Result<Chosen, Refusal> {
    // SAFETY: an aligned word of a map row that is never unmapped.
    let range = SlotRange::unpack(unsafe { ptr::read_volatile(&raw const service.slots) });
    if range.length == 0 {
        return Err(Refusal::Empty);
    }
    let opens = packet.key.protocol == IpProto::Udp as u32 || packet.flags.opens();
    let position = if opens {
        let cursor = CURSORS.get_ptr_mut(service_id).ok_or(Refusal::Empty)?;
        // SAFETY: the row was just looked up, and `next` is an aligned word.
        let turn = unsafe { stats::fetch_add(&raw mut (*cursor).next, 1) };
        schedule::round_robin(turn, range.length)
    } else {
        schedule::by_hash(flow::hash(&packet.key).wrapping_add(attempt), range.length)
    };
    let word = SLOTS
        .get_ptr(range.offset.wrapping_add(position))
        .ok_or(Refusal::Empty)?;
    // SAFETY: an aligned word of a map row.
    let slot = Slot::unpack(unsafe { ptr::read_volatile(word) });
    let backend = BACKENDS
        .get(u32::from(slot.backend))
        .ok_or(Refusal::TryNext)?;
    let state = state(backend);
    if state.flags & BackendState::ACCEPTS == 0 || state.generation != slot.generation {
        return Err(Refusal::TryNext);
    }
    let [.., a, b, c, d] = backend.address;
    Ok(Chosen {
        address: u32::from_ne_bytes([a, b, c, d]),
        port: u16::from_ne_bytes(backend.port_be),
        slot,
    })
}

/// The backend's state in force.
#[inline(always)]
pub(crate) fn state(backend: &BackendRow) -> BackendState {
    // SAFETY: an aligned word of a map row that is never unmapped.
    BackendState::unpack(unsafe { ptr::read_volatile(&raw const backend.state) })
}
