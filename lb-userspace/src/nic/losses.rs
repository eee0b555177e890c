//! Which of a driver's counters are told, and which of those mean lost packets. Pure.
//!
//! Every driver has names of its own (`ethtool -S`), so this goes by words that they have in common.

use std::collections::BTreeMap;

/// Words of counters that mean a lost packet.
const LOST: [&str; 9] = [
    "drop",
    "discard",
    "error",
    "errs",
    "_err",
    "full",
    "missed",
    "no_buf",
    "out_of_buffer",
];

/// Whether the counter of this name is worth telling: of XDP, or of lost packets.
#[must_use]
pub fn is_told(name: &str) -> bool {
    name.contains("xdp") || is_loss(name)
}

/// Whether it counts lost packets. The packets that the program itself drops are not: those have a reason each.
#[must_use]
pub fn is_loss(name: &str) -> bool {
    !name.contains("xdp_drop") && LOST.iter().any(|word| name.contains(word))
}

/// What was lost since `before`, by counter; counters that stood still are left out. A counter that is below what it was
/// began anew, which some drivers do when their rings are made again.
#[must_use]
pub fn since(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let lost = now.iter().filter(|(name, _)| is_loss(name));
    let lost = lost.map(|(name, count)| {
        let before = before.get(name).copied().unwrap_or(0);
        (name.clone(), count.checked_sub(before).unwrap_or(*count))
    });
    lost.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_many_drivers_are_sorted() {
        // veth, virtio_net, mlx5, ixgbe, i40e, ena.
        let losses = [
            "rx_queue_0_drops",
            "rx_queue_0_xdp_tx_errors",
            "tx_queue_1_xdp_xmit_errors",
            "tx_xdp_tx_drops",
            "rx0_drops",
            "rx_out_of_buffer",
            "rx_xdp_tx_full",
            "tx_xdp_err",
            "rx_missed_errors",
            "rx_no_buffer_count",
            "port.rx_discards",
        ];
        for name in losses {
            assert!(is_loss(name) && is_told(name), "{name}");
        }
        let told = [
            "rx_queue_0_xdp_drops",
            "rx0_xdp_drops",
            "rx_xdp_drop",
            "rx_queue_0_xdp_redirect",
            "rx_xdp_packets",
            "queue_0_rx_xdp_drop",
        ];
        for name in told {
            assert!(!is_loss(name) && is_told(name), "{name}");
        }
        for name in ["peer_ifindex", "rx_kicks", "rx_bytes", "tx0_packets"] {
            assert!(!is_told(name), "{name}");
        }
    }

    #[test]
    fn only_what_was_lost_since_counts() {
        let counters = |drops, errors, passed| -> BTreeMap<String, u64> {
            let names = ["rx0_drops", "tx_xdp_tx_errors", "rx_xdp_packets"];
            names
                .map(str::to_owned)
                .into_iter()
                .zip([drops, errors, passed])
                .collect()
        };
        let lost = since(&counters(7, 100, 0), &counters(7, 103, 9));
        assert_eq!(lost, [("tx_xdp_tx_errors".to_owned(), 3)].into());
        let anew = since(&counters(7, 0, 0), &counters(2, 0, 0));
        assert_eq!(anew, [("rx0_drops".to_owned(), 2)].into());
        assert_eq!(
            since(&BTreeMap::new(), &counters(1, 0, 5)),
            [("rx0_drops".to_owned(), 1)].into()
        );
    }
}
