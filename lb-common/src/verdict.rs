//! What became of a packet. The same names are counters and labels of the metrics.

/// The end of a packet's walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: up the stack, untouched.
    Pass,
    /// Rewritten towards a backend whose MAC address is unknown: up the stack, which resolves and delivers it.
    PassRewritten,
    /// Rewritten and sent out of the interface it came from.
    Transmit,
    /// Rewritten and sent out of another interface.
    Redirect,
    /// An echo request to a VIP, answered.
    EchoReply,
    /// Its TTL ran out and the sender was told.
    TimeExceeded,
    /// Dropped.
    Drop(DropReason),
}

impl Verdict {
    /// Every verdict that is not a drop.
    pub const FORWARDED: [Self; 6] = [
        Self::Pass,
        Self::PassRewritten,
        Self::Transmit,
        Self::Redirect,
        Self::EchoReply,
        Self::TimeExceeded,
    ];

    /// Every verdict, drops included.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::FORWARDED
            .into_iter()
            .chain(DropReason::ALL.iter().copied().map(Self::Drop))
    }

    /// Place of its counter. Append-only: a retired one stays empty.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Pass => 0,
            Self::PassRewritten => 1,
            Self::Transmit => 2,
            Self::Redirect => 3,
            Self::EchoReply => 4,
            Self::TimeExceeded => 5,
            Self::Drop(reason) => DropReason::FIRST_ROW + reason as u32,
        }
    }

    /// Label of the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::PassRewritten => "pass_rewritten",
            Self::Transmit => "transmit",
            Self::Redirect => "redirect",
            Self::EchoReply => "echo_reply",
            Self::TimeExceeded => "time_exceeded",
            Self::Drop(reason) => reason.name(),
        }
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $name:literal;)*) => {
        /// Why a packet of ours was dropped. Append-only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant = $value,)*
        }

        impl DropReason {
            /// Every reason, in the order of their rows.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Label of the metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// An IPv4 header that contradicts itself or the frame, addressed to a service, or to a VIP where the port can't be told.
    MalformedIp = 0, "malformed_ip";
    /// A TCP header cut short, with a bad length, or with flags that no stack sends.
    MalformedTcp = 1, "malformed_tcp";
    /// A UDP header cut short or with a bad length.
    MalformedUdp = 2, "malformed_udp";
    /// An ICMP message cut short, addressed to a VIP.
    MalformedIcmp = 3, "malformed_icmp";
    /// A fragment of a service's datagram: fragments are not followed.
    Fragment = 4, "fragment";
    /// An ICMP error to a VIP: what it quotes is not followed to its flow.
    IcmpError = 5, "icmp_error";
    /// A source address that no client can have (RFC 1122 section 3.2.1.3).
    MartianSource = 6, "martian_source";
    /// No backend of the service may take a new flow.
    NoBackend = 7, "no_backend";
    /// The next hop's MAC address is not known and the host does not forward.
    NoNeighbour = 8, "no_neighbour";
    /// The interface towards the next hop is gone or not the balancer's.
    NoInterface = 9, "no_interface";
    /// Other CPUs were at work on the same flow for too long to wait for.
    FlowContended = 10, "flow_contended";
    /// Every backend tried already has a flow with this client address and port, for another VIP.
    ReplyCollision = 12, "reply_collision";
    /// TTL ran out, and answers are over their rate.
    TtlExceeded = 13, "ttl_exceeded";
    /// The frame could not be resized for an answer.
    NoRoom = 14, "no_room";
    /// A row that has to be there is not: a defect, please report it.
    BrokenReference = 15, "broken_reference";
    /// The frame is larger than the MTU of its way out allows.
    ExceedsMtu = 16, "exceeds_mtu";
}

impl DropReason {
    /// Row of the first reason.
    pub const FIRST_ROW: u32 = 16;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::MAX_VERDICTS;

    #[test]
    fn every_row_is_distinct_and_within_the_map() {
        let rows: std::vec::Vec<u32> = Verdict::all().map(Verdict::index).collect();
        let mut unique = rows.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), rows.len());
        assert!(rows.iter().all(|row| *row < MAX_VERDICTS));
    }

    #[test]
    fn names_are_distinct_labels() {
        let mut names: std::vec::Vec<&str> = Verdict::all().map(Verdict::name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(
            names
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }
}
