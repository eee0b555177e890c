//! Stages "service", "schedule" and "make the flow", for a packet without an entry.

use lb_common::{
    abi::{FlowKey, ServiceKey},
    flow::State,
    parse,
    table::{self, Outlook, Remembered, Work},
    verdict::{DropReason, Verdict},
};
use network_types::ip::IpProto;

use crate::{
    control, flow, logging,
    maps::{FOUND_SERVICES, FOUND_SERVICES_BITS, FoundService, SERVICE_KEYS, WORK},
    ours::Packet,
    packet::Frame,
    schedule::{self, Picked},
    table::Table,
};

/// Backends tried for one flow before giving up: a backend may have just gone down, or hold a colliding flow.
const TRIES: u32 = 4;

/// Looks ahead for a packet that most likely begins a flow: finds its service, and asks for the memory that a flow with the
/// backend whose turn it is will need. The processor waits for all of it at once, and not for one line after the other.
///
/// Its own function for the stack: the frames of a call chain share 512 bytes.
#[inline(never)]
pub(crate) fn expect(packet: &Packet, work: &mut Work) {
    if !packet.opens() {
        return;
    }
    work.service = find(&packet.key);
    if work.service != NO_SERVICE
        && let Some(backend) = schedule::foresee(packet, work)
    {
        let outlook = work.outlook();
        table::expect(&Table, &packet.key, outlook);
        let reply = table::reply(&packet.key, backend.address(), backend.port());
        match outlook {
            Outlook::Nothing => table::expect_overflow(&Table, &reply),
            _ => table::expect(&Table, &reply, outlook),
        }
    }
}

/// Finds the service of a packet without a flow, and notes in `work` what a flow is made of. Gives whether there is one
/// to be made: a reply of a flow that found no room has its recipe in `there` of `work`.
///
/// Its own function, so that the verifier walks the packet's common path and this one apart.
#[inline(never)]
pub(crate) fn enter(packet: &Packet, work: &mut Work) -> Result<bool, Verdict> {
    let key = &packet.key;
    if !packet.opens() {
        work.service = find(key);
    }
    if work.service == NO_SERVICE {
        return if !packet.fragment && flow::is_reply_without_entry(packet, work) {
            Ok(false)
        } else {
            Err(Verdict::Pass)
        };
    }
    if packet.fragment {
        return Err(Verdict::Drop(DropReason::Fragment));
    }
    if parse::is_martian(key.source_word()) {
        return Err(Verdict::Drop(DropReason::MartianSource));
    }
    work.key = *key;
    work.clock = flow::clock();
    work.state = State::first(key.protocol(), packet.flags) as u8;
    Ok(true)
}

/// Chooses a backend and makes the flow, whose recipe then is `there` of `work`. `over` there is the tag of an entry of
/// the packet that is over, 0 where there is none.
#[inline(always)]
pub(crate) fn admit(frame: &Frame, packet: &Packet, work: &mut Work) -> Result<(), Verdict> {
    match try_backends(packet, work) {
        Ok(true) => {
            logging::flow_made(frame, &packet.key, &work.there);
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(reason) => Err(Verdict::Drop(reason)),
    }
}

/// Tries the service's backends until one takes the flow. Where it gets no entry, the packet goes by its hash,
/// as all later ones of the flow will, until one finds room. Gives whether it has an entry.
#[inline(always)]
fn try_backends(packet: &Packet, work: &mut Work) -> Result<bool, DropReason> {
    let stays = packet.opens() && flow::may_have_no_entry(work) && had_no_entry(packet, work);
    let room = if stays {
        flow::make(work, packet.opens())?
    } else {
        try_each(packet, work, true)?
    };
    if room {
        return Ok(true);
    }
    try_each(packet, work, false)?;
    Ok(false)
}

/// Whether the packet's flow found no room before. It then stays with the backend of its hash, which is chosen.
#[inline(always)]
fn had_no_entry(packet: &Packet, work: &mut Work) -> bool {
    for attempt in 0..TRIES {
        match schedule::pick(packet, attempt, true, work) {
            Picked::Backend => {}
            Picked::TryNext => continue,
            Picked::Nothing => break,
        }
        match flow::replies_of_backend(work) {
            Remembered::Its => return true,
            // A flow that went on because an entry had its replies is not found; to look at every backend would cost a flood's
            // packet 160 ns.
            Remembered::Nobodys => break,
            Remembered::Anothers => {}
        }
    }
    false
}

/// Tries one backend after the other for a flow `with_entry`, or for one without, which goes by its hash. Gives whether the
/// packet has its recipe now; an entry there may be no room for.
#[inline(always)]
fn try_each(packet: &Packet, work: &mut Work, with_entry: bool) -> Result<bool, DropReason> {
    let mut reason = DropReason::NoBackend;
    for attempt in 0..TRIES {
        match schedule::pick(packet, attempt, !with_entry, work) {
            Picked::Backend => {}
            Picked::TryNext => continue,
            Picked::Nothing => break,
        }
        let made = if with_entry {
            flow::make(work, packet.opens())
        } else {
            flow::make_without_entry(work).map(|()| true)
        };
        match made {
            Ok(room) => return Ok(room),
            Err(why) => reason = why,
        }
        if !matches!(reason, DropReason::ReplyCollision) {
            break;
        }
    }
    Err(reason)
}

/// This CPU's working memory for a flow to be made. No other program of ours runs on the CPU meanwhile.
#[inline(always)]
pub(crate) fn work() -> Option<&'static mut Work> {
    // SAFETY: this CPU's own row, and only the path of the packet at hand holds it.
    WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// A row that no service has.
const NO_SERVICE: u32 = 0;

/// Row of the service that a packet is addressed to: the one that this CPU found last time, as long as the keys are the same.
#[inline(always)]
fn find(key: &FlowKey) -> u32 {
    let (address, port_and_protocol) = key.destination_endpoint();
    let endpoint = u64::from(address) << 32 | u64::from(port_and_protocol);
    // Loaded before the keys: one that changes meanwhile makes the answer void.
    let keys_version = control::keys_version();
    let place = endpoint.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - FOUND_SERVICES_BITS);
    let Some(found) = FOUND_SERVICES.get_ptr_mut(place as u32) else {
        return look_up(key);
    };
    // SAFETY: this CPU's own row.
    let found = unsafe { &mut *found };
    if found.endpoint != endpoint || found.keys_version != keys_version {
        *found = FoundService {
            endpoint,
            keys_version,
            service: look_up(key),
            padding: 0,
        };
    }
    found.service
}

/// Row of the service of a packet's destination, by the map.
#[inline(always)]
fn look_up(key: &FlowKey) -> u32 {
    let wanted = ServiceKey::new(
        mapped(key.destination_word()),
        key.destination_port().to_ne_bytes(),
        key.protocol(),
    );
    // SAFETY: the value is one aligned word, read once.
    match unsafe { SERVICE_KEYS.get(&wanted) } {
        Some(id) if *id != ServiceKey::VIP_MARKER => *id,
        _ => NO_SERVICE,
    }
}

/// Whether there is such a service, or such a marker of a VIP.
#[inline(always)]
pub(crate) fn has_key(key: &ServiceKey) -> bool {
    // SAFETY: only the presence is looked at.
    unsafe { SERVICE_KEYS.get(key) }.is_some()
}

/// Whether an address is a VIP.
#[inline(always)]
pub(crate) fn is_vip(address: u32) -> bool {
    has_key(&ServiceKey::new(
        mapped(address),
        ServiceKey::NO_PORT,
        IpProto::Icmp as u8,
    ))
}

/// An IPv4 address as control maps hold it.
#[inline(always)]
pub(crate) const fn mapped(address: u32) -> [u8; 16] {
    let [a, b, c, d] = address.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
