//! What an operator should know of an interface, in words. Pure.

use super::{Channels, Nic, Peer, Queues};

/// The largest MTU that a veth's peer may have for native mode without fragments. The kernel's own limit depends on
/// how it was built (3,506 on 6.18 for x86-64): this one fits all.
const VETH_MTU: u32 = 3498;
/// The same for a NIC that keeps a frame in one page of 4 KiB: the page without room for headers (256 and some), the
/// kernel's notes behind the frame (320) and the Ethernet header.
const PAGE_MTU: u32 = 3400;
/// Names of QEMU's virtio-net device for what its host may merge or leave unchecked.
const GUEST_OFFLOADS: &str = "guest_csum, guest_tso4, guest_tso6, guest_ecn, guest_ufo";

/// How the program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// By the driver; otherwise by the kernel's generic hook.
    pub native: bool,
    /// The only interface: frames leave by the one that they came from.
    pub one_arm: bool,
    /// CPUs that the machine may ever have.
    pub cpus: u32,
}

/// What drivers of Linux mean by an error that they return from attaching, and the help; `None` where nobody knows. The
/// kernel says it in words only by netlink, which makes no link. With `auto`, generic mode comes next anyway.
#[must_use]
pub fn refusal(nic: &Nic, errno: i32, native: bool, auto: bool) -> Option<String> {
    let name = &nic.name;
    let advice = match errno {
        libc::EOPNOTSUPP if native => unsupported(nic, auto),
        libc::ERANGE | libc::EMSGSIZE | libc::EINVAL if mtu_too_large(nic) => mtu(nic),
        libc::ERANGE | libc::EMSGSIZE => mtu(nic),
        libc::ENOSPC => format!(
            "it has fewer receive queues than its peer has transmit queues, or too few for XDP; change them with `ethtool \
             -L {name}`, or give a veth its queues when it is made: `ip link add .. numrxqueues N`"
        ),
        libc::EINVAL => format!(
            "usual reasons: an MTU too large for XDP (it is {}, up to {PAGE_MTU} suits all), receive offloads that XDP \
             excludes (`ethtool -K {name} lro off rx-gro-hw off`), too few queues (`ethtool -L {name}`); `dmesg` often \
             names it",
            nic.mtu
        ),
        libc::ENOMEM => {
            "memory or queues are short: one transmit queue a CPU is needed on many drivers"
                .to_owned()
        }
        libc::EPERM => "CAP_BPF and CAP_NET_ADMIN are needed".to_owned(),
        libc::ENETDOWN => format!("bring it up: `ip link set dev {name} up`"),
        _ => return None,
    };
    Some(advice)
}

/// Native mode is not supported.
fn unsupported(nic: &Nic, auto: bool) -> String {
    let generic = if auto {
        "`mode = \"generic\"` says that generic mode is meant"
    } else {
        "`mode = \"auto\"` or `mode = \"generic\"` does without"
    };
    match nic.driver.as_str() {
        "virtio_net" => format!(
            "its host merges frames for it and leaves their checksums unchecked, and does not let it switch that off: \
             leave `ctrl_guest_offloads` of QEMU's virtio-net device on, or switch {GUEST_OFFLOADS} off there (and \
             guest_uso4, guest_uso6 where it has them); {generic}"
        ),
        "bridge" if nic.ports.is_empty() => format!("a bridge has no native XDP; {generic}"),
        "bridge" => {
            let (ports, them) = (
                nic.ports.join(", "),
                if nic.ports.len() == 1 { "it" } else { "them" },
            );
            format!(
                "a bridge has no native XDP, its ports may: {ports}; take what the traffic comes through out of the \
                 bridge (`ip link set dev {} nomaster`), give it the addresses, and name it in [[interface]]; or leave \
                 {them} there: {generic}",
                nic.ports[0]
            )
        }
        "" => format!("its driver has no XDP; {generic}"),
        driver => format!("its driver, {driver}, has no native XDP; {generic}"),
    }
}

/// Whether the MTU that matters is above what any driver takes without fragments.
fn mtu_too_large(nic: &Nic) -> bool {
    match &nic.peer {
        Some(Peer::Here { mtu, .. }) => *mtu > VETH_MTU,
        Some(Peer::Elsewhere) => false,
        None => nic.mtu > PAGE_MTU,
    }
}

fn mtu(nic: &Nic) -> String {
    let lower = |name: &str, limit| format!("`ip link set dev {name} mtu {limit}`");
    match &nic.peer {
        // A veth asks for the peer's MTU, by which frames come, and not for its own.
        Some(Peer::Here { name, mtu, .. }) => format!(
            "the MTU of its peer {name} is {mtu}, and without fragments XDP takes frames up to the page: {VETH_MTU} at \
             most; {}",
            lower(name, VETH_MTU)
        ),
        Some(Peer::Elsewhere) => format!(
            "the MTU of its peer, in another network namespace, is above {VETH_MTU}, and without fragments XDP takes \
             frames up to the page; {} there",
            lower("PEER", VETH_MTU)
        ),
        None => format!(
            "its MTU is {}, and without fragments XDP takes frames up to the page: {PAGE_MTU} suits all drivers, some \
             take a little more, which `dmesg` may say; {}",
            nic.mtu,
            lower(&nic.name, PAGE_MTU)
        ),
    }
}

/// What costs packets or speed on an interface that the program runs on, each with its help.
#[must_use]
pub fn notices(nic: &Nic, attachment: Attachment) -> Vec<String> {
    let veth = match &nic.peer {
        Some(Peer::Here {
            name,
            has_program,
            gro,
            tx_checksum,
            ..
        }) => veth(name, *has_program, *gro, *tx_checksum, attachment),
        _ => Vec::new(),
    };
    [merged(nic, attachment), locked(nic, attachment)]
        .into_iter()
        .flatten()
        .chain(veth)
        .collect()
}

/// What can't be seen from here and would cost packets, with what to do about it.
#[must_use]
pub fn unseen(nic: &Nic, attachment: Attachment) -> Option<String> {
    (nic.peer == Some(Peer::Elsewhere)).then(|| {
        let needed = veth("PEER", false, false, true, attachment);
        format!(
            "the other end of this veth is in another network namespace and can't be seen from here; for PEER, its name \
             there, see to it that none of this is so: {}",
            needed.join("; ")
        )
    })
}

/// Generic mode on an interface that hands over merged frames.
fn merged(nic: &Nic, attachment: Attachment) -> Option<String> {
    let on: Vec<_> = [("rx-gro-hw", nic.gro_hw), ("lro", nic.lro)]
        .into_iter()
        .filter(|(_, feature)| feature.on)
        .collect();
    if attachment.native || on.is_empty() {
        return None;
    }
    let names = on.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let fixed = on.iter().any(|(_, feature)| feature.fixed);
    let help = match nic.driver.as_str() {
        "virtio_net" if fixed => format!(
            "have its host leave `ctrl_guest_offloads` of QEMU's virtio-net device on, which also allows native mode, or \
             switch {GUEST_OFFLOADS} off there"
        ),
        _ if fixed => "take another interface, or native mode".to_owned(),
        _ => {
            let off = names.iter().map(|name| format!(" {name} off"));
            format!("`ethtool -K {}{}`", nic.name, off.collect::<String>())
        }
    };
    Some(format!(
        "received frames are merged before generic mode sees them ({} on{}), and what is larger than the MTU can't be \
         redirected: bulk TCP crawls, and no drop here counts it; help: {help}",
        names.join(", "),
        if fixed { " and fixed" } else { "" }
    ))
}

/// `virtio_net` wants a pair of queues for each CPU beside those in use, and takes them as long as there are any.
fn locked(nic: &Nic, attachment: Attachment) -> Option<String> {
    let Channels { combined, most } = nic.channels?;
    let cpus = attachment.cpus;
    let has_none = match nic.queues {
        // Those for XDP alone receive too, and do not send for the stack.
        Some(Queues { receive, transmit }) => receive <= transmit,
        None => most <= cpus,
    };
    if nic.driver != "virtio_net" || !attachment.native || !has_none {
        return None;
    }
    let help = if most > cpus {
        format!(
            "use fewer, with the program off the interface: `ethtool -L {} combined {}`",
            nic.name,
            most - cpus
        )
    } else {
        format!(
            "have its host give it at least {}: `queues=` of QEMU's netdev, with `mq=on`",
            cpus + 1
        )
    };
    Some(format!(
        "it has {most} pairs of queues, {combined} in use, and XDP wants one more for each of {cpus} CPUs: frames are sent \
         under a lock, which is slower; help: {help}"
    ))
}

/// A veth whose peer is not prepared for frames from XDP.
fn veth(
    peer: &str,
    has_program: bool,
    gro: bool,
    tx_checksum: bool,
    attachment: Attachment,
) -> Vec<String> {
    let mut notices = Vec::new();
    if tx_checksum {
        notices.push(format!(
            "{peer} leaves checksums to a NIC that is not there, and frames that came from it go on with wrong ones; help: \
             `ethtool -K {peer} tx off`"
        ));
    }
    if !attachment.native || has_program {
        return notices;
    }
    let program = format!(
        "an XDP program on it, be it one that only passes, such as `xdp-filter load --mode native {peer}` of xdp-tools"
    );
    if attachment.one_arm {
        notices.push(format!(
            "{peer} has no XDP program, and frames sent back to it are lost or stall; help: {program}; or `mode = \
             \"generic\"`"
        ));
    } else if !gro {
        notices.push(format!(
            "{peer} has neither an XDP program nor GRO, and every frame sent to it is lost; help: {program}; or `ethtool \
             -K {peer} gro on`, which all but answers to a ping of the VIP need"
        ));
    }
    notices
}
