//! Whether the process may do what the agent has to do.

use std::fs;

/// Bits of `include/uapi/linux/capability.h`.
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];
/// Stands for `CAP_BPF` and `CAP_PERFMON`.
const SYS_ADMIN: u32 = 21;

/// The capabilities that are missing; none where that can't be told.
pub(super) fn missing() -> Vec<&'static str> {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status))
        .map_or_else(Vec::new, lacking)
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn lacking(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & 1 << bit != 0;
    let granted = |name: &str, bit| has(bit) || (name != "CAP_NET_ADMIN" && has(SYS_ADMIN));
    NEEDED
        .into_iter()
        .filter(|(bit, name)| !granted(name, *bit))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(
            effective("Name:\tlb\nCapEff:\t000000c000001000\n"),
            Some(0xc0_0000_1000)
        );
        assert_eq!(lacking(0xc0_0000_1000), [""; 0]);
        assert_eq!(lacking(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(lacking(1 << SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(lacking(1 << 39 | 1 << 12), ["CAP_PERFMON"]);
    }
}
