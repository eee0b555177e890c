//! What stands where in the words of an entry.

use super::*;

const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "192.0.2.10:80";

fn key() -> FlowKey {
    FlowKey::new(CLIENT.parse().unwrap(), VIP.parse().unwrap(), 0x86)
}

#[test]
fn a_key_gives_back_what_it_was_made_of() {
    let key = key();
    assert_eq!(key.source(), CLIENT.parse().unwrap());
    assert_eq!(key.destination(), VIP.parse().unwrap());
    assert_eq!(key.protocol(), 0x86);
    assert_eq!(key.source_word(), u32::from_ne_bytes([198, 51, 100, 7]));
    assert_eq!(key.destination_word(), u32::from_ne_bytes([192, 0, 2, 10]));
    assert_eq!(key.source_port(), 40_000_u16.to_be());
    assert_eq!(key.destination_port(), 80_u16.to_be());
    let endpoint = |word, port: u16| (word, u32::from(port) | 0x86 << 16);
    assert_eq!(
        key.source_endpoint(),
        endpoint(key.source_word(), key.source_port())
    );
    assert_eq!(
        key.destination_endpoint(),
        endpoint(key.destination_word(), key.destination_port())
    );
    // What an entry keeps above the key is no part of it.
    let mut entry = key;
    entry.rest |= !FlowKey::REST;
    assert_eq!(entry.destination_endpoint(), key.destination_endpoint());
    assert_eq!(entry.protocol(), key.protocol());
}

#[test]
fn the_rest_of_a_key_is_40_bits() {
    let key = key();
    assert_eq!(key.rest & !FlowKey::REST, 0);
    for bit in 0..64 {
        let word = key.rest ^ 1 << bit;
        assert_eq!(key.has_rest(word), bit >= 40, "bit {bit}");
    }
    assert!(key.has_rest(key.rest));
}

#[test]
fn a_recipe_gives_back_each_of_its_parts() {
    let recipe = Recipe {
        rest: key().rest | 0x83 << meta::STATE | meta::REVERSE | 0x55 << meta::TENANT,
        rewrite: 0xdead_1f90_0b00_020a,
        binding: 0x0000_fedc_1234_beef,
        service: 0x8765_4321_0000_1abc,
        way: 7,
    };
    assert_eq!(recipe.state(), 0x83);
    assert_eq!(recipe.role(), 0x183);
    assert!(recipe.is_reverse());
    assert_eq!(recipe.address(), 0x0b00_020a);
    assert_eq!(recipe.port(), 0x1f90);
    assert_eq!(recipe.delta_ip(), 0xdead);
    assert_eq!(recipe.delta_transport(), 0xbeef);
    assert_eq!(recipe.backend(), 0x1234);
    assert_eq!(recipe.backend_generation(), 0xfedc);
    assert_eq!(recipe.service(), 0x1abc);
    assert_eq!(recipe.last_seen(), 0x8765_4321);
    let there = Recipe {
        rest: recipe.rest ^ meta::REVERSE,
        ..recipe
    };
    assert_eq!(there.role(), 0x83);
    assert!(!there.is_reverse());
    let rewritten = Recipe {
        rewrite: u64::from(key().destination_word()) | u64::from(80_u16.to_be()) << 32,
        ..recipe
    };
    assert_eq!(rewritten.rewritten(), VIP.parse().unwrap());
}

#[test]
fn established_is_a_role_of_each_direction() {
    let state = u64::from(crate::flow::State::Established as u8);
    assert_eq!(Recipe::ESTABLISHED_FORWARD, state);
    assert_eq!(Recipe::ESTABLISHED_REVERSE, state | 0x100);
}

#[test]
fn a_print_tells_addresses_and_interfaces_apart() {
    let print =
        |last, ifindex| ingress_print(u64::from_le_bytes([2, 0, 0, 0, 0, last, 8, 0]), ifindex);
    assert_eq!(print(1, 3) & 0xffff_ffff_ffff, 0x0100_0000_0002);
    assert_ne!(print(1, 3), print(2, 3));
    assert_ne!(print(1, 3), print(1, 4));
    assert_eq!(print(1, 3) ^ print(1, 4), 7 << 48);
}

#[test]
fn a_snapshot_of_an_entry_is_read_unless_it_is_free_or_being_written() {
    let entry = |tag, addresses| FlowEntry {
        words: [tag, addresses, key().rest | 3 << meta::STATE, 4, 5, 6, 7, 8],
    };
    let recipe = Recipe {
        rest: key().rest | 3 << meta::STATE,
        rewrite: 4,
        binding: 5,
        service: 6,
        way: 7,
    };
    let read = entry(2, key().addresses).read();
    assert_eq!(read, Some((key(), recipe)));
    assert_eq!(entry(0, key().addresses).read(), None, "never used");
    assert_eq!(entry(3, key().addresses).read(), None, "being written");
    assert_eq!(entry(2, 0).read(), None, "freed");
}
