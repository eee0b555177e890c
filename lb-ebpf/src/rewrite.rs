//! Stage "rewrite": MAC addresses, address, port, TTL and checksums, from the recipe.

use lb_common::{
    abi::Recipe,
    checksum,
    packet::{PacketView, Window},
    parse::{ETHERNET, IPV4_MIN},
    rewrite,
    verdict::{DropReason, Verdict},
};
use network_types::ip::IpProto;

use crate::{forward::Route, ours::Packet, packet::Frame};

/// Rewrites the packet in place.
#[inline(always)]
pub(crate) fn apply(
    frame: &Frame,
    packet: &Packet,
    recipe: &Recipe,
    route: &Route,
) -> Result<(), Verdict> {
    const NO_ROOM: Verdict = Verdict::Drop(DropReason::NoRoom);
    let head = frame.window::<{ ETHERNET + IPV4_MIN }>(0).ok_or(NO_ROOM)?;
    let mut delta_ip = recipe.delta_ip();
    match route {
        Route::Out { to, from, .. } => {
            head.put_macs(*to, *from);
            head.put_u8::<22>(head.u8::<22>().wrapping_sub(1));
        }
        // The host counts the hop.
        Route::Host => {
            delta_ip = checksum::fold(u32::from(delta_ip) + checksum::TTL_INCREMENT);
        }
    }
    head.put_u16::<24>(checksum::apply(head.u16::<24>(), delta_ip));
    if recipe.is_reverse() {
        head.put_u32::<26>(recipe.address());
    } else {
        head.put_u32::<30>(recipe.address());
    }

    let offset = ETHERNET + packet.header_length;
    if packet.key.protocol() == IpProto::Tcp as u8 {
        let segment = frame.window::<20>(offset).ok_or(NO_ROOM)?;
        if recipe.is_reverse() {
            segment.put_u16::<0>(recipe.port());
        } else {
            segment.put_u16::<2>(recipe.port());
        }
        segment.put_u16::<16>(rewrite::tcp_checksum(
            segment.u16::<16>(),
            recipe.delta_transport(),
        ));
    } else {
        let datagram = frame.window::<8>(offset).ok_or(NO_ROOM)?;
        if recipe.is_reverse() {
            datagram.put_u16::<0>(recipe.port());
        } else {
            datagram.put_u16::<2>(recipe.port());
        }
        datagram.put_u16::<6>(rewrite::udp_checksum(
            datagram.u16::<6>(),
            recipe.delta_transport(),
        ));
    }
    Ok(())
}
