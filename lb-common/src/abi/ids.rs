//! Ids of rows in the control maps. Zero in a map means "never written", so no id is zero.

use core::num::{NonZeroU8, NonZeroU16, NonZeroU32};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $raw:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The id of row `raw`; `None` for row 0, which no id names.
            #[must_use]
            #[inline(always)]
            pub const fn new(raw: $raw) -> Option<Self> {
                match <$inner>::new(raw) {
                    Some(inner) => Some(Self(inner)),
                    None => None,
                }
            }

            /// The row.
            #[must_use]
            #[inline(always)]
            pub const fn get(self) -> $raw {
                self.0.get()
            }
        }
    };
}

id!(
    /// Row of `SERVICES`.
    ServiceId, NonZeroU32, u32
);
id!(
    /// Row of `BACKENDS`; 16 bits, because a flow entry carries it.
    BackendId, NonZeroU16, u16
);
id!(
    /// Row of `INTERFACES` and of `DEVICES`.
    InterfaceSlot, NonZeroU8, u8
);
