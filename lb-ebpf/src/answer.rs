//! What the balancer answers itself: echo requests to a VIP, and packets whose TTL runs out.

use lb_common::{
    checksum, icmp,
    packet::{PacketView, Window},
    parse::{self, ETHERNET, Ipv4, Network},
    verdict::{DropReason, Verdict},
};

use crate::{
    control, forward,
    packet::{Frame, FrameWindow},
    service,
    stats::{self, Limit},
};

/// An ICMP message whose destination may be a VIP.
#[inline(never)]
pub(crate) fn icmp(frame: &Frame, kind: u8) -> Verdict {
    let Network::Ipv4(ip) = parse::network(frame) else {
        return Verdict::Pass;
    };
    if !service::is_vip(ip.destination) {
        return Verdict::Pass;
    }
    if icmp::is_error(kind) {
        return Verdict::Drop(DropReason::IcmpError);
    }
    if kind != icmp::ECHO_REQUEST {
        return Verdict::Pass;
    }
    // Such an address is nobody's on a wire, and an answer to it must not be seen there (RFC 1122 section 3.2.1.3).
    if parse::is_martian(ip.source) {
        return Verdict::Drop(DropReason::MartianSource);
    }
    if !matches!(ip.fragment, parse::Fragment::No) {
        return Verdict::Drop(DropReason::Fragment);
    }
    match echo(frame, &ip) {
        Some(()) => Verdict::EchoReply,
        None => Verdict::Drop(DropReason::NoRoom),
    }
}

/// Turns an echo request into its reply: addresses swapped, the type changed, a TTL of its own (RFC 1122 section 3.2.2.6).
#[inline(always)]
fn echo(frame: &Frame, ip: &Ipv4) -> Option<()> {
    let message = frame.window::<8>(ETHERNET + ip.header_length)?;
    message.put_u8::<0>(icmp::ECHO_REPLY);
    message.put_u16::<2>(icmp::reply_checksum(message.u16::<2>()));

    let head = frame.window::<34>(0)?;
    swap_macs(head);
    head.put_u32::<26>(ip.destination);
    head.put_u32::<30>(ip.source);
    let old = u16::from_ne_bytes([ip.ttl, ip.protocol]);
    let new = u16::from_ne_bytes([icmp::TTL, ip.protocol]);
    head.put_u8::<22>(icmp::TTL);
    head.put_u16::<24>(checksum::apply(
        head.u16::<24>(),
        checksum::fold(checksum::replace(old, new)),
    ));
    Some(())
}

/// Ends the walk of a packet whose TTL runs out here, with an answer where the rate allows one.
#[inline(always)]
pub(crate) fn ttl(frame: &Frame, ip: &Ipv4) -> Result<(), Verdict> {
    if ip.ttl > 1 {
        Ok(())
    } else {
        Err(expired(frame))
    }
}

#[inline(never)]
fn expired(frame: &Frame) -> Verdict {
    let Network::Ipv4(ip) = parse::network(frame) else {
        return Verdict::Pass;
    };
    let address = control::interface(forward::ingress_slot(frame).into()).ipv4();
    if address == 0 || !stats::within_rate(Limit::Errors) {
        return Verdict::Drop(DropReason::TtlExceeded);
    }
    match time_exceeded(frame, &ip, address.to_ne_bytes()) {
        Some(()) => Verdict::TimeExceeded,
        None => Verdict::Drop(DropReason::NoRoom),
    }
}

/// Puts IPv4 and ICMP headers in front of the packet and cuts it after what the error quotes (RFC 792).
#[inline(always)]
fn time_exceeded(frame: &Frame, ip: &Ipv4, from: [u8; 4]) -> Option<()> {
    let quoted = ip.header_length + icmp::QUOTED_PAYLOAD;
    let quoted_sum = sum(frame, quoted)?;
    let old = frame.window::<ETHERNET>(0)?;
    let (to_head, to_tail) = (old.u32::<6>(), old.u16::<10>());
    let (from_head, from_tail) = (old.u32::<0>(), old.u16::<4>());
    let ether_type = old.u16::<12>();

    let surplus = frame.length().checked_sub(ETHERNET + quoted)?;
    frame.adjust_tail(-i32::try_from(surplus).ok()?).ok()?;
    frame
        .adjust_head(-i32::try_from(icmp::ERROR_HEADERS).ok()?)
        .ok()?;

    let headers = icmp::time_exceeded(from, ip.source.to_ne_bytes(), quoted, quoted_sum);
    let new = frame.window::<{ ETHERNET + icmp::ERROR_HEADERS }>(0)?;
    new.put_u32::<0>(to_head);
    new.put_u16::<4>(to_tail);
    new.put_u32::<6>(from_head);
    new.put_u16::<10>(from_tail);
    new.put_u16::<12>(ether_type);
    write_headers(new, &headers);
    Some(())
}

macro_rules! put_words {
    ($window:ident, $bytes:ident, $($at:literal)*) => {
        $($window.put_u16::<{ ETHERNET + $at }>(u16::from_ne_bytes([$bytes[$at], $bytes[$at + 1]]));)*
    };
}

#[inline(always)]
fn write_headers(
    window: FrameWindow<{ ETHERNET + icmp::ERROR_HEADERS }>,
    bytes: &[u8; icmp::ERROR_HEADERS],
) {
    put_words!(window, bytes, 0 2 4 6 8 10 12 14 16 18 20 22 24 26);
}

/// One's complement sum of the first `length` bytes of the IPv4 packet; `length` is even and at most 68.
#[inline(always)]
fn sum(frame: &Frame, length: usize) -> Option<u32> {
    const MAX: usize = 68;
    let mut sum = 0;
    for at in (0..MAX).step_by(2) {
        if at < length {
            sum += u32::from(frame.window::<2>(ETHERNET + at)?.u16::<0>());
        }
    }
    Some(sum)
}

#[inline(always)]
fn swap_macs(head: FrameWindow<34>) {
    let (to_head, to_tail) = (head.u32::<0>(), head.u16::<4>());
    let (from_head, from_tail) = (head.u32::<6>(), head.u16::<10>());
    head.put_u32::<0>(from_head);
    head.put_u16::<4>(from_tail);
    head.put_u32::<6>(to_head);
    head.put_u16::<10>(to_tail);
}
