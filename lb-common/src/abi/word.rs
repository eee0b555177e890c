//! The words that change under a reading packet. Each is published by one aligned store and read by one aligned load, so
//! a packet sees either the old meaning or the new one, never a mixture.

/// A service's range of slots: `offset` into the arena and `length`, both in slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotRange {
    /// First slot of the range.
    pub offset: u32,
    /// Number of slots; 0 where no backend may take a new flow.
    pub length: u32,
}

impl SlotRange {
    /// The word as the map holds it.
    #[must_use]
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.offset as u64 | (self.length as u64) << 32
    }

    /// The range that `word` holds.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each half is taken on purpose"
    )]
    pub const fn unpack(word: u64) -> Self {
        Self {
            offset: word as u32,
            length: (word >> 32) as u32,
        }
    }
}

/// One slot: the backend and the generation of its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Row of `BACKENDS`; 0 in a slot that was never filled.
    pub backend: u16,
    /// Must equal the row's generation, otherwise the row has another tenant.
    pub generation: u16,
}

impl Slot {
    /// The slot as the arena holds it: an array's elements are eight bytes apart, so the word has 64 bits.
    #[must_use]
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.backend as u64 | (self.generation as u64) << 16
    }

    /// The slot that `word` holds.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each half is taken on purpose"
    )]
    pub const fn unpack(word: u64) -> Self {
        Self {
            backend: word as u16,
            generation: (word >> 16) as u16,
        }
    }
}

/// What may change about a backend while flows use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendState {
    /// [`BackendState::IN_USE`] and its neighbours.
    pub flags: u16,
    /// Grows by one each time the row gets a new tenant.
    pub generation: u16,
}

impl BackendState {
    /// The row has a tenant.
    pub const IN_USE: u16 = 1;
    /// New flows may go there: in the configuration, of a weight above 0 and healthy.
    pub const ACCEPTS: u16 = 1 << 1;

    /// The word as the map holds it.
    #[must_use]
    #[inline(always)]
    pub const fn pack(self) -> u32 {
        self.flags as u32 | (self.generation as u32) << 16
    }

    /// The state that `word` holds.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each half is taken on purpose"
    )]
    pub const fn unpack(word: u32) -> Self {
        Self {
            flags: word as u16,
            generation: (word >> 16) as u16,
        }
    }
}

/// A way out on Ethernet: the MAC address to send to and the interface to send from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Destination MAC address.
    pub mac: [u8; 6],
    /// Row of `INTERFACES` and `DEVICES`; 0 in a word that was never written.
    pub interface: u8,
    /// [`Way::RESOLVED`].
    pub flags: u8,
}

impl Way {
    /// The MAC address is known.
    pub const RESOLVED: u8 = 1;

    /// Bits of the word that hold the MAC address.
    pub const MAC: u64 = 0xffff_ffff_ffff;

    /// [`Way::interface`] of a word.
    #[must_use]
    #[inline(always)]
    pub const fn slot(word: u64) -> u32 {
        (word >> 48) as u32 & 0xff
    }

    /// Whether a word has [`Way::RESOLVED`].
    #[must_use]
    #[inline(always)]
    pub const fn is_resolved(word: u64) -> bool {
        word >> 56 & Self::RESOLVED as u64 != 0
    }

    /// The word as the maps hold it: the bytes in this order, the first one lowest.
    #[must_use]
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        let mac = self.mac;
        u64::from_le_bytes([
            mac[0],
            mac[1],
            mac[2],
            mac[3],
            mac[4],
            mac[5],
            self.interface,
            self.flags,
        ])
    }

    /// The word of the way back to where a packet came from: `print` holds its source MAC address in the low 48 bits
    /// ([`super::ingress_print`]), `interface` is the slot of the interface that received it.
    #[must_use]
    #[inline(always)]
    pub const fn back(print: u64, interface: u8) -> u64 {
        print & Self::MAC | (interface as u64) << 48 | (Self::RESOLVED as u64) << 56
    }

    /// The way that `word` holds.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let bytes = word.to_le_bytes();
        Self {
            mac: [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]],
            interface: bytes[6],
            flags: bytes[7],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_packing() {
        let range = SlotRange {
            offset: 0xdead_beef,
            length: 7,
        };
        assert_eq!(SlotRange::unpack(range.pack()), range);
        let slot = Slot {
            backend: 0xbeef,
            generation: 0xfeed,
        };
        assert_eq!(Slot::unpack(slot.pack()), slot);
        let state = BackendState {
            flags: 3,
            generation: 0xfffe,
        };
        assert_eq!(BackendState::unpack(state.pack()), state);
        let way = Way {
            mac: [1, 2, 3, 4, 5, 6],
            interface: 9,
            flags: Way::RESOLVED,
        };
        assert_eq!(Way::unpack(way.pack()), way);
        assert_eq!(Way::slot(way.pack()), 9);
        assert_eq!(way.pack() & Way::MAC, 0x0605_0403_0201);
        for flags in 0..=u8::MAX {
            let word = Way { flags, ..way }.pack();
            assert_eq!(Way::is_resolved(word), flags & Way::RESOLVED != 0);
        }
    }

    #[test]
    fn the_way_back_leads_to_the_sender() {
        let mac = [2, 0, 0, 0, 0, 7];
        let print =
            crate::abi::ingress_print(u64::from_le_bytes([2, 0, 0, 0, 0, 7, 8, 0]), 0x1_2345);
        let way = Way {
            mac,
            interface: 3,
            flags: Way::RESOLVED,
        };
        assert_eq!(Way::unpack(Way::back(print, 3)), way);
    }
}
