//! Stages "service", "schedule" and "make the flow", for a packet without an entry.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{FlowKey, ServiceKey, ServiceRow, word::Way},
    flow::State,
    parse,
    rewrite::Binding,
    verdict::{DropReason, Verdict},
};
use network_types::ip::IpProto;

use crate::{
    flow::{self, Recipe},
    forward, logging,
    maps::{SERVICE_KEYS, SERVICES},
    ours::Packet,
    packet::Frame,
    schedule, stats,
};

/// Backends tried for one flow before giving up: a backend may have just gone down, or hold a colliding flow.
const TRIES: u32 = 4;

/// Finds the packet's service, chooses a backend and makes the flow.
///
/// Its own function, so that the verifier walks the packet's common path and this one apart.
#[inline(never)]
pub(crate) fn admit(frame: &Frame, packet: &Packet) -> Result<Recipe, Verdict> {
    let key = &packet.key;
    let Some((id, service)) = find(key) else {
        return Err(Verdict::Pass);
    };
    if packet.fragment {
        return Err(Verdict::Drop(DropReason::Fragment));
    }
    if parse::is_martian(key.source) {
        return Err(Verdict::Drop(DropReason::MartianSource));
    }
    let slot = forward::ingress_slot(frame);
    let ingress_print = forward::ingress(frame).ok_or(Verdict::Pass)?;
    let mut reason = DropReason::NoBackend;
    for attempt in 0..TRIES {
        let chosen = match schedule::pick(id, service, packet, attempt) {
            Ok(chosen) => chosen,
            Err(why) => {
                if !matches!(why, schedule::Refusal::TryNext) {
                    break;
                }
                continue;
            }
        };
        let binding = Binding {
            backend_address: chosen.address,
            backend_port: chosen.port,
            backend: chosen.slot.backend,
            backend_generation: chosen.slot.generation,
            service: id,
            state: State::first(key.protocol, packet.flags) as u8,
            now: now(),
            ingress_print,
            way: Way::back(ingress_print, slot),
        };
        match flow::make(key, &binding) {
            Ok(recipe) => {
                stats::count_new_flow(id, u32::from(recipe.backend));
                logging::flow_made(frame, key, &recipe);
                return Ok(recipe);
            }
            Err(why) => reason = why,
        }
        if !matches!(reason, DropReason::ReplyCollision) {
            break;
        }
    }
    logging::flow_refused(frame, key, reason);
    Err(Verdict::Drop(reason))
}

/// The service that a packet is addressed to.
#[inline(always)]
fn find(key: &FlowKey) -> Option<(u32, &'static ServiceRow)> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a protocol number has 8 bits"
    )]
    let wanted = ServiceKey::new(
        mapped(key.destination),
        key.destination_port.to_ne_bytes(),
        key.protocol as u8,
    );
    // SAFETY: the value is one aligned word, read once.
    let id = *unsafe { SERVICE_KEYS.get(&wanted) }?;
    SERVICES.get(id).map(|row| (id, row))
}

/// Whether the VIP has the marker for a protocol.
#[inline(always)]
pub(crate) fn is_marked(key: &ServiceKey) -> bool {
    // SAFETY: only the presence is looked at.
    unsafe { SERVICE_KEYS.get(key) }.is_some()
}

/// Whether an address is a VIP.
#[inline(always)]
pub(crate) fn is_vip(address: u32) -> bool {
    is_marked(&ServiceKey::new(
        mapped(address),
        [0; 2],
        IpProto::Icmp as u8,
    ))
}

/// An IPv4 address as control maps hold it.
#[inline(always)]
pub(crate) const fn mapped(address: u32) -> [u8; 16] {
    let [a, b, c, d] = address.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Low 32 bits of `jiffies64`.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "ages are wrapping differences"
)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_jiffies64() as u32 }
}
