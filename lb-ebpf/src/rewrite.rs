//! Stage "rewrite": MAC addresses, address, port, TTL and checksums, from the recipe.

use lb_common::{
    abi::Recipe,
    checksum,
    packet::{PacketView, Window},
    parse::{self, ETHERNET, IPV4_MIN, TCP_MIN, UDP_MIN},
    rewrite,
    verdict::{DropReason, Verdict},
};

use crate::{
    forward::Route,
    ours::Packet,
    packet::{Frame, FrameWindow},
};

/// Bytes of the headers in front of the transport's, without IPv4 options.
pub(crate) const HEAD: usize = ETHERNET + IPV4_MIN;

/// Rewrites the packet in place.
#[inline(always)]
pub(crate) fn apply(
    frame: &Frame,
    packet: &Packet,
    recipe: &Recipe,
    route: &Route,
) -> Result<(), Verdict> {
    const NO_ROOM: Verdict = Verdict::Drop(DropReason::NoRoom);
    let window = frame.window::<HEAD>(0).ok_or(NO_ROOM)?;
    let reverse = recipe.is_reverse();
    match route {
        Route::Out { to, from, .. } => head(window, recipe, reverse, *to, *from),
        // The host counts the hop.
        Route::Host => {
            let delta = u32::from(recipe.delta_ip()) + checksum::TTL_INCREMENT;
            let sum = checksum::apply(window.u16::<24>(), checksum::fold(delta));
            window.put_u16::<24>(sum);
            address(window, recipe, reverse);
        }
    }
    let offset = ETHERNET + usize::from(packet.header_length);
    if packet.key.protocol() == parse::TCP {
        segment(frame.window(offset).ok_or(NO_ROOM)?, recipe, reverse);
    } else {
        datagram(frame.window(offset).ok_or(NO_ROOM)?, recipe, reverse);
    }
    Ok(())
}

/// Rewrites the Ethernet and IPv4 headers of a packet that leaves with one hop less.
#[inline(always)]
pub(crate) fn head(window: FrameWindow<HEAD>, recipe: &Recipe, reverse: bool, to: u64, from: u64) {
    window.put_macs(to, from);
    let word = rewrite::ttl_and_checksum(window.u32::<22>(), recipe.delta_ip());
    window.put_u32::<22>(word);
    address(window, recipe, reverse);
}

#[inline(always)]
fn address(window: FrameWindow<HEAD>, recipe: &Recipe, reverse: bool) {
    if reverse {
        window.put_u32::<26>(recipe.address());
    } else {
        window.put_u32::<30>(recipe.address());
    }
}

/// Rewrites a TCP header.
#[inline(always)]
pub(crate) fn segment(window: FrameWindow<TCP_MIN>, recipe: &Recipe, reverse: bool) {
    port(window, recipe, reverse);
    let sum = rewrite::tcp_checksum(window.u16::<16>(), recipe.delta_transport());
    window.put_u16::<16>(sum);
}

/// Rewrites a UDP header.
#[inline(always)]
pub(crate) fn datagram(window: FrameWindow<UDP_MIN>, recipe: &Recipe, reverse: bool) {
    port(window, recipe, reverse);
    let sum = rewrite::udp_checksum(window.u16::<6>(), recipe.delta_transport());
    window.put_u16::<6>(sum);
}

#[inline(always)]
fn port<const N: usize>(window: FrameWindow<N>, recipe: &Recipe, reverse: bool) {
    if reverse {
        window.put_u16::<0>(recipe.port());
    } else {
        window.put_u16::<2>(recipe.port());
    }
}
