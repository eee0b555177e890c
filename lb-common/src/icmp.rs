//! The ICMP messages that the balancer sends itself: echo replies and time exceeded (RFC 792).

use crate::checksum;

/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of an echo request.
pub const ECHO_REQUEST: u8 = 8;
/// TTL of packets that the balancer makes.
pub const TTL: u8 = 64;
/// Bytes of the IPv4 and ICMP headers in front of what an error quotes.
pub const ERROR_HEADERS: usize = 28;
/// Bytes of the datagram's payload that an error quotes.
pub const QUOTED_PAYLOAD: usize = 8;

const TIME_EXCEEDED: u8 = 11;
const ICMP: u8 = 1;

/// Whether a message reports an error, and so quotes a packet: unreachable, source quench, redirect, time exceeded, parameter problem.
#[must_use]
#[inline(always)]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// The checksum of an echo reply, from that of its request: only the type changes.
///
/// Never 0: where a reply is all zeroes, its sum is 0 and its checksum 0xffff, which an incremental change can't tell from a sum of
/// 0xffff (RFC 1624 section 3). The checksum 0xffff is right for both.
#[must_use]
#[inline(always)]
pub const fn reply_checksum(request: u16) -> u16 {
    let changed = checksum::apply(
        request,
        checksum::fold(checksum::replace(
            u16::from_ne_bytes([ECHO_REQUEST, 0]),
            u16::from_ne_bytes([ECHO_REPLY, 0]),
        )),
    );
    if changed == 0 { u16::MAX } else { changed }
}

/// IPv4 and ICMP headers of "time to live exceeded in transit", to stand in front of the quoted bytes.
///
/// `quoted_sum` is the one's complement sum of the quoted bytes, `quoted` their number, at most 68.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 96 bytes")]
pub fn time_exceeded(
    from: [u8; 4],
    to: [u8; 4],
    quoted: usize,
    quoted_sum: u32,
) -> [u8; ERROR_HEADERS] {
    let length = ((ERROR_HEADERS + quoted) as u16).to_be_bytes();
    let mut ip = [
        0x45, 0, length[0], length[1], 0, 0, 0, 0, TTL, ICMP, 0, 0, from[0], from[1], from[2],
        from[3], to[0], to[1], to[2], to[3],
    ];
    let ip_sum = checksum::header(&ip).to_ne_bytes();
    ip[10] = ip_sum[0];
    ip[11] = ip_sum[1];
    let icmp_sum = u32::from(u16::from_ne_bytes([TIME_EXCEEDED, 0])) + quoted_sum;
    let icmp_sum = (!checksum::fold(icmp_sum)).to_ne_bytes();
    let mut out = [0; ERROR_HEADERS];
    out[..20].copy_from_slice(&ip);
    out[20] = TIME_EXCEEDED;
    out[22] = icmp_sum[0];
    out[23] = icmp_sum[1];
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_differs_from_its_request_by_the_type_alone() {
        // Request: type 8, code 0, checksum, identifier 1, sequence 1.
        let request =
            !checksum::fold(u32::from(u16::from_ne_bytes([8, 0])) + 2 * u32::from(1u16.to_be()));
        let reply = !checksum::fold(2 * u32::from(1u16.to_be()));
        assert_eq!(reply_checksum(request), reply);
    }

    #[test]
    fn five_kinds_of_messages_report_errors() {
        let errors: std::vec::Vec<u8> = (0..=u8::MAX).filter(|kind| is_error(*kind)).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
    }

    #[test]
    fn headers_of_time_exceeded_sum_to_zero() {
        let quoted_sum = 0x1_2345;
        let bytes = time_exceeded([192, 0, 2, 1], [198, 51, 100, 1], 28, quoted_sum);
        let sum = |part: &[u8]| -> u32 {
            part.chunks(2)
                .map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]])))
                .sum()
        };
        assert_eq!(checksum::fold(sum(&bytes[..20])), 0xffff);
        assert_eq!(checksum::fold(sum(&bytes[20..]) + quoted_sum), 0xffff);
        assert_eq!(bytes[2..4], 56u16.to_be_bytes());
    }
}
