//! What is said of interfaces that a test machine need not have.

use super::*;

const ON: Feature = Feature {
    on: true,
    fixed: false,
};
const FIXED: Feature = Feature {
    on: true,
    fixed: true,
};

fn nic(driver: &str) -> Nic {
    Nic {
        name: "eth0".to_owned(),
        driver: driver.to_owned(),
        mtu: 1500,
        ..Nic::default()
    }
}

fn veth(peer: Peer) -> Nic {
    Nic {
        peer: Some(peer),
        ..nic("veth")
    }
}

fn peer(has_program: bool, gro: bool, tx_checksum: bool) -> Peer {
    Peer::Here {
        name: "v1".to_owned(),
        mtu: 1500,
        has_program,
        gro,
        tx_checksum,
    }
}

fn how(native: bool, one_arm: bool) -> Attachment {
    Attachment {
        native,
        one_arm,
        cpus: 4,
    }
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "does not say `{word}`: {text}");
    }
}

fn refused(nic: &Nic, errno: i32, auto: bool) -> String {
    refusal(nic, errno, true, auto).unwrap()
}

#[test]
fn virtio_net_with_locked_offloads_names_them_and_the_control() {
    let text = refused(&nic("virtio_net"), libc::EOPNOTSUPP, false);
    let offloads = "guest_csum, guest_tso4, guest_tso6, guest_ecn, guest_ufo";
    says(&text, &[offloads, "ctrl_guest_offloads", "mode = \"auto\""]);
    assert!(
        !text.contains("no XDP") && !text.contains("no native"),
        "{text}"
    );
}

#[test]
fn a_driver_without_xdp_is_named() {
    says(
        &refused(&nic("8021q"), libc::EOPNOTSUPP, false),
        &["8021q", "no native XDP", "mode = \"auto\""],
    );
    says(&refused(&nic(""), libc::EOPNOTSUPP, false), &["no XDP"]);
    assert_eq!(
        refusal(&nic("8021q"), libc::EOPNOTSUPP, false, false),
        None,
        "generic mode needs no driver"
    );
}

#[test]
fn nobody_who_has_auto_is_told_to_use_it() {
    for driver in ["virtio_net", "bridge", "8021q", ""] {
        let text = refused(&nic(driver), libc::EOPNOTSUPP, true);
        assert!(!text.contains("\"auto\""), "{text}");
        says(&text, &["mode = \"generic\""]);
    }
}

#[test]
fn a_bridge_names_its_ports() {
    let bridge = Nic {
        ports: vec!["eth1".to_owned(), "tap0".to_owned()],
        ..nic("bridge")
    };
    says(
        &refused(&bridge, libc::EOPNOTSUPP, true),
        &["a bridge has no native XDP", "eth1, tap0", "nomaster"],
    );
    says(
        &refused(&nic("bridge"), libc::EOPNOTSUPP, true),
        &["a bridge has no native XDP"],
    );
}

#[test]
fn an_mtu_that_is_refused_comes_with_the_limit() {
    let jumbo = Nic {
        mtu: 9000,
        ..nic("virtio_net")
    };
    for errno in [libc::EINVAL, libc::ERANGE, libc::EMSGSIZE] {
        says(
            &refused(&jumbo, errno, false),
            &["9000", "3400", "ip link set dev eth0 mtu 3400"],
        );
    }
    let mut jumbo = veth(peer(true, true, false));
    if let Some(Peer::Here { mtu, .. }) = &mut jumbo.peer {
        *mtu = 9000;
    }
    says(
        &refused(&jumbo, libc::ERANGE, false),
        &["peer v1 is 9000", "3498", "ip link set dev v1 mtu 3498"],
    );
    says(
        &refused(&veth(Peer::Elsewhere), libc::ERANGE, false),
        &["3498", "ip link set dev PEER mtu 3498"],
    );
    let text = refused(&nic("ixgbe"), libc::EINVAL, false);
    says(&text, &["it is 1500", "lro off", "ethtool -L eth0"]);
}

#[test]
fn other_refusals_say_what_to_do() {
    for (errno, word) in [
        (libc::ENOSPC, "queues"),
        (libc::ENOMEM, "queue a CPU"),
        (libc::EPERM, "CAP_NET_ADMIN"),
        (libc::ENETDOWN, "ip link set dev eth0 up"),
    ] {
        says(&refused(&nic("ixgbe"), errno, false), &[word]);
    }
    assert_eq!(refusal(&nic("ixgbe"), libc::EIO, true, false), None);
}

#[test]
fn generic_mode_over_merged_frames_is_warned_of() {
    let locked = Nic {
        gro_hw: FIXED,
        ..nic("virtio_net")
    };
    let said = notices(&locked, how(false, true));
    assert_eq!(said.len(), 1, "{said:?}");
    says(
        &said[0],
        &[
            "rx-gro-hw on and fixed",
            "bulk TCP crawls",
            "ctrl_guest_offloads",
            "guest_tso4",
        ],
    );
    assert_eq!(
        notices(&locked, how(true, true)),
        [""; 0],
        "native mode excludes it"
    );
    let both = Nic {
        gro_hw: ON,
        lro: ON,
        ..nic("ixgbe")
    };
    let said = notices(&both, how(false, false));
    says(&said[0], &["`ethtool -K eth0 rx-gro-hw off lro off`"]);
    let fixed = Nic {
        lro: FIXED,
        ..nic("ixgbe")
    };
    says(&notices(&fixed, how(false, false))[0], &["native mode"]);
    assert_eq!(notices(&nic("ixgbe"), how(false, false)), [""; 0]);
}

#[test]
fn too_few_queues_of_virtio_net_are_warned_of() {
    let queues = |most, combined, receive, transmit| Nic {
        channels: Some(Channels { combined, most }),
        queues: Some(Queues { receive, transmit }),
        ..nic("virtio_net")
    };
    // All eight in use: none is left for the four CPUs.
    let said = notices(&queues(8, 8, 8, 8), how(true, true));
    says(
        &said[0],
        &["8 pairs", "4 CPUs", "`ethtool -L eth0 combined 4`"],
    );
    let said = notices(&queues(4, 1, 1, 1), how(true, true));
    says(&said[0], &["at least 5", "mq=on"]);
    // Four in use, and four more for XDP.
    assert_eq!(notices(&queues(8, 8, 8, 4), how(true, true)), [""; 0]);
    assert_eq!(notices(&queues(4, 1, 1, 1), how(false, true)), [""; 0]);
    let unseen = |most| Nic {
        queues: None,
        ..queues(most, 1, 0, 0)
    };
    assert_eq!(notices(&unseen(4), how(true, true)).len(), 1);
    assert_eq!(notices(&unseen(5), how(true, true)), [""; 0]);
    let other = Nic {
        driver: "ixgbe".to_owned(),
        ..queues(4, 4, 4, 4)
    };
    assert_eq!(notices(&other, how(true, true)), [""; 0]);
}

#[test]
fn a_veth_whose_peer_swallows_frames_is_warned_of() {
    let said = |program, gro, tx, native, one_arm| {
        notices(&veth(peer(program, gro, tx)), how(native, one_arm))
    };
    assert_eq!(said(true, false, false, true, true), [""; 0]);
    let checksums = said(true, false, true, true, true);
    says(&checksums[0], &["`ethtool -K v1 tx off`"]);
    assert_eq!(
        said(true, false, true, false, true),
        checksums,
        "generic too"
    );
    // What GRO does for redirected frames it does not for those sent back.
    for gro in [true, false] {
        let back = said(false, gro, false, true, true);
        says(
            &back[0],
            &["v1 has no XDP program", "xdp-filter load", "generic"],
        );
    }
    assert_eq!(said(false, true, false, true, false), [""; 0]);
    let redirected = said(false, false, false, true, false);
    says(&redirected[0], &["every frame", "`ethtool -K v1 gro on`"]);
    assert_eq!(said(false, false, false, false, false), [""; 0]);
}

#[test]
fn a_peer_that_can_not_be_seen_is_told_with_a_placeholder() {
    let elsewhere = veth(Peer::Elsewhere);
    assert_eq!(notices(&elsewhere, how(true, false)), [""; 0]);
    let said = unseen(&elsewhere, how(true, false)).unwrap();
    says(
        &said,
        &[
            "can't be seen",
            "`ethtool -K PEER tx off`",
            "`ethtool -K PEER gro on`",
        ],
    );
    let said = unseen(&elsewhere, how(true, true)).unwrap();
    says(&said, &["PEER has no XDP program", "xdp-filter load"]);
    assert_eq!(
        unseen(&veth(peer(false, false, true)), how(true, true)),
        None
    );
    assert_eq!(unseen(&nic("ixgbe"), how(true, true)), None);
}
