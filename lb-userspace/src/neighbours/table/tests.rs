//! Cases of routes, links and neighbours, and the ways that follow.

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254));
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const ON_LINK: RouteAnswer = RouteAnswer::Unicast {
    ifindex: 2,
    gateway: None,
    source: Some(SOURCE),
};
const BY_GATEWAY: RouteAnswer = RouteAnswer::Unicast {
    ifindex: 2,
    gateway: Some(GATEWAY),
    source: Some(SOURCE),
};

fn link(ifindex: u32, name: &str) -> LinkRow {
    LinkRow {
        ifindex,
        name: name.to_owned(),
        mac: [2; 6],
        ethernet: true,
        up: true,
        mtu: 1_500,
    }
}

fn neighbour(address: IpAddr, usability: Usability) -> NeighbourRow {
    NeighbourRow {
        key: (2, address),
        mac: Some(MAC),
        usability,
    }
}

fn address(last: u8, protocol: u8) -> AddressRow {
    AddressRow {
        ifindex: 2,
        address: Ipv4Addr::new(10, 0, 0, last),
        prefix: 24,
        protocol,
    }
}

fn watch() -> Watch {
    Watch {
        interfaces: ["eth0".to_owned()].into(),
        destinations: [BACKEND].into(),
    }
}

/// A host with `eth0`, `eth9` and a route to the backend.
fn table(route: RouteAnswer) -> Table {
    Table {
        links: [(2, link(2, "eth0")), (9, link(9, "eth9"))].into(),
        routes: [(BACKEND, route)].into(),
        ..Table::default()
    }
}

fn way(table: &Table) -> (Hop, String) {
    let way = table.observe(&watch()).ways.remove(&BACKEND).unwrap();
    (
        way.hop,
        way.reason
            .map(|reason| reason.to_string())
            .unwrap_or_default(),
    )
}

fn key(address: IpAddr) -> HopKey {
    HopKey {
        interface: "eth0".to_owned(),
        address,
    }
}

#[test]
fn the_hop_is_the_backend_or_its_gateway() {
    for (route, hop) in [(ON_LINK, BACKEND), (BY_GATEWAY, GATEWAY)] {
        let mut table = table(route);
        assert_eq!(
            table.note(Event::Neighbour(neighbour(hop, Usability::Fresh))),
            Effect::Noted
        );
        assert_eq!(
            way(&table),
            (
                Hop::Known {
                    key: key(hop),
                    mac: MAC
                },
                String::new()
            )
        );
    }
}

#[test]
fn a_mac_address_is_used_as_long_as_it_is_valid() {
    for usability in [
        Usability::Fixed,
        Usability::Fresh,
        Usability::Confirming,
        Usability::Stale,
    ] {
        let mut table = table(ON_LINK);
        table.note(Event::Neighbour(neighbour(BACKEND, usability)));
        assert_eq!(
            way(&table).0,
            Hop::Known {
                key: key(BACKEND),
                mac: MAC
            },
            "{usability:?}"
        );
    }
}

#[test]
fn what_is_in_force_stays_while_the_neighbour_does_not_answer() {
    let keep = |table: &Table| {
        let (hop, reason) = way(table);
        assert_eq!(
            hop,
            Hop::Keep {
                key: Some(key(BACKEND))
            }
        );
        assert_eq!(reason, "10.0.0.5 does not answer ARP on eth0");
    };
    let mut table = table(ON_LINK);
    keep(&table);
    table.note(Event::Neighbour(neighbour(BACKEND, Usability::Fresh)));
    table.note(Event::Neighbour(NeighbourRow {
        mac: None,
        ..neighbour(BACKEND, Usability::None)
    }));
    keep(&table);
    table.note(Event::Neighbour(neighbour(BACKEND, Usability::Fresh)));
    table.note(Event::NeighbourGone((2, BACKEND)));
    keep(&table);
}

#[test]
fn a_way_that_xdp_cannot_take_says_why() {
    let unicast = |ifindex| RouteAnswer::Unicast {
        ifindex,
        gateway: None,
        source: None,
    };
    let cases = [
        (
            unicast(9),
            "10.0.0.5 is routed through eth9, which is not one of [[interface]]; help: ",
        ),
        (RouteAnswer::Local, "10.0.0.5 is an address of this host, "),
        (
            RouteAnswer::Many,
            "10.0.0.5 is a broadcast or multicast address; help: ",
        ),
        (
            RouteAnswer::None("the kernel has none"),
            "there is no route to 10.0.0.5: the kernel has none; help: ",
        ),
    ];
    for (route, words) in cases {
        let (hop, reason) = way(&table(route));
        assert_eq!(hop, Hop::Unreachable);
        assert!(reason.starts_with(words), "{reason}");
    }
    let mut tunnel = table(ON_LINK);
    tunnel.note(Event::Link(LinkRow {
        ethernet: false,
        ..link(2, "eth0")
    }));
    assert!(
        way(&tunnel)
            .1
            .contains("eth0, which has no Ethernet addresses"),
        "{}",
        way(&tunnel).1
    );
}

#[test]
fn a_way_says_which_of_our_addresses_the_backend_sees() {
    let source = |table: &Table| table.observe(&watch()).ways[&BACKEND].source;
    let mut table = table(ON_LINK);
    assert_eq!(source(&table), Some(SOURCE), "also while it is not known");
    table.note(Event::Neighbour(neighbour(BACKEND, Usability::Fresh)));
    assert_eq!(source(&table), Some(SOURCE));
    table.routes.insert(BACKEND, RouteAnswer::Local);
    assert_eq!(source(&table), None);
}

#[test]
fn a_route_that_is_known_before_its_link_changes_nothing_yet() {
    let table = table(RouteAnswer::Unicast {
        ifindex: 77,
        gateway: None,
        source: None,
    });
    assert_eq!(way(&table).0, Hop::Keep { key: None });
}

#[test]
fn a_link_that_goes_takes_its_addresses_and_neighbours_along() {
    let mut table = table(ON_LINK);
    table.note(Event::Neighbour(neighbour(BACKEND, Usability::Fresh)));
    table.note(Event::Address(address(1, 0)));
    assert_eq!(table.note(Event::LinkGone(2)), Effect::Routes);
    assert_eq!(
        table.observe(&watch()).links,
        [("eth0".to_owned(), None)].into()
    );
    assert!(table.addresses.is_empty() && table.neighbours.is_empty());
    table.note(Event::Link(link(12, "eth0")));
    let back = table.observe(&watch()).links["eth0"].unwrap();
    assert_eq!((back.ifindex, back.ipv4), (12, None));
}

#[test]
fn a_link_that_is_renamed_is_another_one() {
    let mut table = table(ON_LINK);
    table.note(Event::Link(link(2, "eth7")));
    assert_eq!(table.observe(&watch()).links["eth0"], None);
    assert!(way(&table).1.contains("routed through eth7"));
}

#[test]
fn the_first_address_is_not_a_managed_one() {
    let mut table = table(ON_LINK);
    let ipv4 = |table: &Table| table.observe(&watch()).links["eth0"].unwrap().ipv4;
    for row in [address(10, PROTOCOL), address(1, 0), address(2, 0)] {
        assert_eq!(table.note(Event::Address(row)), Effect::Routes);
    }
    assert_eq!(ipv4(&table), Some(Ipv4Addr::new(10, 0, 0, 1)));
    table.note(Event::AddressGone(address(1, 0)));
    assert_eq!(ipv4(&table), Some(Ipv4Addr::new(10, 0, 0, 2)));
}

#[test]
fn only_neighbours_behind_our_interfaces_are_probed_while_these_are_up() {
    let wanted = |table: &Table| table.wanted(&watch()).collect::<Vec<_>>();
    assert_eq!(
        wanted(&table(BY_GATEWAY)),
        [((2, GATEWAY), Usability::None)]
    );
    assert_eq!(
        wanted(&table(RouteAnswer::Unicast {
            ifindex: 9,
            gateway: None,
            source: None,
        })),
        []
    );
    assert_eq!(wanted(&table(RouteAnswer::Local)), []);
    let mut down = table(ON_LINK);
    down.note(Event::Link(LinkRow {
        up: false,
        ..link(2, "eth0")
    }));
    assert_eq!(wanted(&down), []);
}

#[test]
fn an_observation_answers_the_watch_it_was_made_for() {
    let observation = table(ON_LINK).observe(&watch());
    assert!(observation.answers(&watch()));
    assert!(!observation.answers(&Watch {
        destinations: [BACKEND, GATEWAY].into(),
        ..watch()
    }));
    assert!(!observation.answers(&Watch {
        interfaces: ["eth1".to_owned()].into(),
        ..watch()
    }));
}

#[test]
fn the_way_to_what_is_no_longer_watched_is_forgotten() {
    let mut table = table(ON_LINK);
    table.routes.insert(GATEWAY, ON_LINK);
    table.forget_others(&watch());
    assert_eq!(table.neighbour_on_the_way(BACKEND), Some((2, BACKEND)));
    assert_eq!(table.neighbour_on_the_way(GATEWAY), None);
    let nothing = Watch {
        destinations: [].into(),
        ..watch()
    };
    table.forget_others(&nothing);
    assert!(table.routes.is_empty());
}

#[test]
fn a_link_made_anew_with_the_same_index_is_another() {
    let mut table = table(RouteAnswer::Local);
    let watch = Watch {
        interfaces: ["eth0".to_owned()].into(),
        ..Watch::default()
    };
    let before = table.observe(&watch);
    table.note(Event::Link(link(2, "eth0")));
    assert_eq!(table.observe(&watch), before);
    table.note(Event::LinkGone(2));
    table.note(Event::Link(link(2, "eth0")));
    assert_ne!(table.observe(&watch), before);
}
