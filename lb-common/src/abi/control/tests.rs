//! Rows give back what they were made of.

use super::*;

#[test]
fn addresses_are_read_back() {
    for text in ["192.0.2.10", "0.0.0.0", "2001:db8::1", "::1"] {
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(address_from_bytes(address_bytes(address)), address);
    }
    let mapped = address_bytes("192.0.2.10".parse().unwrap());
    assert_eq!(
        mapped,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10]
    );
}

#[test]
fn a_backends_row_says_what_it_was_made_of() {
    let way = Way {
        mac: [2, 3, 4, 5, 6, 7],
        interface: 8,
        flags: Way::RESOLVED,
    };
    let state = BackendState {
        flags: BackendState::IN_USE,
        generation: 9,
    };
    let row = BackendRow::new("10.2.0.11:8080".parse().unwrap(), way, state);
    assert_eq!((row.way(), row.state()), (way, state));
    assert_eq!(row.port_be, [0x1f, 0x90]);
    assert_eq!(row.address[12..], [10, 2, 0, 11]);
}

#[test]
fn a_services_row_says_its_range() {
    let range = SlotRange {
        offset: 64,
        length: 3,
    };
    let row = ServiceRow {
        slots: range.pack(),
        ..ServiceRow::default()
    };
    assert_eq!(row.range(), range);
}
