//! Stage "flow": finds, follows and makes the entries of the flow table. Nothing outside this file knows its shape.

use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lb_common::{
    abi::{FlowEntry, FlowKey, word::Way},
    flow::{self, Direction, State},
    rewrite::{self, Binding},
    verdict::{DropReason, Verdict},
};

use crate::{
    forward,
    maps::{BACKENDS, CONFIG, FLOWS},
    ours::Packet,
    packet::Frame,
    schedule, service,
};

/// All that is needed to rewrite a packet and send it on.
///
/// Without a `bool` or another type with unused values: rustc would keep the tag of `Result<Recipe, _>` in it, and the
/// kernel (6.18) refuses the type information of a function that returns such a union: "Invalid member `bits_offset`".
pub(crate) struct Recipe {
    /// New address: the destination's, or in a reply the source's.
    pub(crate) address: u32,
    /// New port.
    pub(crate) port: u16,
    /// Flags of the entry.
    flags: u8,
    /// For the IPv4 header checksum.
    pub(crate) delta_ip: u16,
    /// For the transport checksum.
    pub(crate) delta_transport: u16,
    /// Row of `BACKENDS`.
    pub(crate) backend: u16,
    /// Row of `SERVICES`.
    pub(crate) service: u32,
    /// In a reply, the way to the client.
    pub(crate) way: u64,
}

impl Recipe {
    /// Whether the packet is a reply.
    #[inline(always)]
    pub(crate) const fn is_reverse(&self) -> bool {
        self.flags & FlowEntry::REVERSE != 0
    }

    #[inline(always)]
    fn of(entry: &FlowEntry) -> Self {
        Self {
            address: entry.address,
            port: entry.port,
            flags: entry.flags,
            delta_ip: entry.delta_ip,
            delta_transport: entry.delta_transport,
            backend: entry.backend,
            service: entry.service,
            way: entry.way,
        }
    }
}

/// Looks up the 5-tuple as seen on the wire; an entry of either direction is a hit.
///
/// `None` where the packet has to go through its service: no entry, or one that is over.
#[inline(always)]
pub(crate) fn find(frame: &Frame, packet: &Packet) -> Result<Option<Recipe>, Verdict> {
    let Some(pointer) = FLOWS.get_ptr_mut(&packet.key) else {
        return Ok(None);
    };
    if packet.fragment {
        return Err(Verdict::Drop(DropReason::Fragment));
    }
    // SAFETY: an entry's recipe is written before it is inserted and stays; the words that change are read alone.
    let entry = unsafe { &*pointer };
    if !State::is_settled(entry.state, packet.flags) && !follow(packet, pointer) {
        return Ok(None);
    }
    let now = service::now();
    if entry.last_seen != now {
        // SAFETY: an aligned word; a hint that the last writer wins.
        unsafe { ptr::write_volatile(&raw mut (*pointer).last_seen, now) };
    }
    if !entry.is_reverse() {
        if !is_current(entry) {
            return Ok(None);
        }
        let print = forward::ingress(frame).ok_or(Verdict::Pass)?;
        if print != entry.way {
            client_moved(frame, packet, pointer, print);
        }
    }
    Ok(Some(Recipe::of(entry)))
}

/// Whether the entry's backend still is the tenant of its row.
#[inline(always)]
fn is_current(entry: &FlowEntry) -> bool {
    BACKENDS
        .get(u32::from(entry.backend))
        .is_some_and(|row| schedule::state(row).generation == entry.backend_generation)
}

/// Follows a packet that may change the flow's state. `false` where the flow is over and the packet begins another.
#[inline(never)]
fn follow(packet: &Packet, pointer: *mut FlowEntry) -> bool {
    // SAFETY: the caller's entry.
    let entry = unsafe { &*pointer };
    let state = State::from_byte(entry.state);
    let ticks = CONFIG.get(0).map_or(0, |config| config.ticks_per_second);
    let over = flow::is_expired(entry, packet.key.protocol, service::now(), ticks);
    let reverse = entry.is_reverse();
    if !reverse && (over || (packet.flags.opens() && state.yields_to_syn())) {
        return false;
    }
    let direction = if reverse {
        Direction::Reverse
    } else {
        Direction::Forward
    };
    let next = state.after(direction, packet.flags);
    if next != state {
        let partner = FLOWS.get_ptr_mut(flow::partner(&packet.key, entry));
        // SAFETY: one byte each of entries just looked up.
        unsafe {
            ptr::write_volatile(&raw mut (*pointer).state, next as u8);
            if let Some(partner) = partner {
                ptr::write_volatile(&raw mut (*partner).state, next as u8);
            }
        }
    }
    true
}

/// The client's packets come another way: replies follow.
#[inline(never)]
fn client_moved(frame: &Frame, packet: &Packet, pointer: *mut FlowEntry, print: u64) {
    let way = Way::back(print, forward::ingress_slot(frame));
    // SAFETY: the caller's entry; `way` is one aligned word.
    unsafe {
        ptr::write_volatile(&raw mut (*pointer).way, print);
        if let Some(reverse) = FLOWS.get_ptr_mut(flow::partner(&packet.key, &*pointer)) {
            ptr::write_volatile(&raw mut (*reverse).way, way);
        }
    }
}

/// Makes both entries of a flow. Where another CPU was first, its flow is the one, and its recipe is returned.
///
/// 1. An entry that is over gives way, with its partner.
/// 2. The reply's entry goes in first: its 5-tuple may be taken by a flow of the same client port to another VIP.
/// 3. The client's entry goes in only if there is none; otherwise ours is taken back.
#[inline(always)]
pub(crate) fn make(key: &FlowKey, binding: &Binding) -> Result<Recipe, DropReason> {
    forget(key);
    let (forward, reverse) = rewrite::nat(key, binding);
    let reply = flow::partner(key, &forward);
    place_reply(key, &reply, &reverse)?;
    if FLOWS.insert(key, &forward, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(Recipe::of(&forward));
    }
    let Some(winner) = FLOWS.get_ptr_mut(key) else {
        remove(&reply);
        return Err(DropReason::TableFull);
    };
    // SAFETY: just looked up; only the recipe is read.
    let winner = unsafe { &*winner };
    if winner.backend != forward.backend {
        remove(&reply);
    }
    Ok(Recipe::of(winner))
}

/// Removes a client's entry, if it is there, and its partner.
#[inline(never)]
fn forget(key: &FlowKey) {
    if let Some(old) = FLOWS.get_ptr_mut(key) {
        // SAFETY: just looked up; only the recipe is read.
        let reply = flow::partner(key, unsafe { &*old });
        remove(&reply);
        remove(key);
    }
}

/// Puts the reply's entry in, unless a living flow of another VIP holds its 5-tuple.
#[inline(never)]
fn place_reply(key: &FlowKey, reply: &FlowKey, entry: &FlowEntry) -> Result<(), DropReason> {
    if FLOWS.insert(reply, entry, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(());
    }
    let Some(holder) = FLOWS.get_ptr_mut(reply) else {
        return Err(DropReason::TableFull);
    };
    // SAFETY: just looked up.
    let holder = unsafe { &*holder };
    let owner = flow::partner(reply, holder);
    if owner != *key {
        let ticks = CONFIG.get(0).map_or(0, |config| config.ticks_per_second);
        if flow::is_active(holder, key.protocol, service::now(), ticks) {
            return Err(DropReason::ReplyCollision);
        }
        remove(&owner);
    }
    FLOWS
        .insert(reply, entry, u64::from(BPF_ANY))
        .map_err(|_| DropReason::TableFull)
}

/// Removes an entry that may be gone already.
#[inline(always)]
fn remove(key: &FlowKey) {
    // An error says that another CPU, or the table's own eviction, was first.
    FLOWS.remove(key).ok();
}
