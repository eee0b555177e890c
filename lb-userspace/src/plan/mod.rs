//! What must change in the maps so that they hold what is wanted.
//!
//! [`plan`] compares the [`Desired`] state, which knows names and addresses, with the [`Actual`] one, which knows ids,
//! and gives the [`Change`]s between them in an order in which a packet at any point sees a correct state: a row is
//! written before anything names it, a name is removed before its row. It allocates ids and ranges of slots, and lets
//! those that fall out of use rest until nothing refers to them ([`Book`]). It does no I/O and reads no clock.

mod arena;
mod book;
mod change;
pub(crate) mod desired;
mod interfaces;
mod order;
mod salvage;
mod services;
mod tables;
mod ways;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use book::{Book, GRACE, References};
pub use change::Change;
pub use desired::{Desired, Hop, HopKey, Interface, Service, ServiceAddress};
pub use order::plan;
pub use salvage::Salvage;
pub(crate) use tables::backend_address;
pub use tables::{Slots, Tables};

/// What is in force, and what the maps themselves can't say of it.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// Contents of the maps.
    pub tables: Tables,
    /// Owners of ids, and what rests.
    pub book: Book,
}

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// To be applied in this order; where one can't be, [`Salvage`] says which of the others may.
    pub changes: Vec<Change>,
    /// To be kept whether or not all changes could be applied: it is checked against the maps each time.
    pub book: Book,
    /// What could not be planned; what it concerns keeps its last good state.
    pub refused: Vec<Refusal>,
}

/// Why a part of the desired state can't be had. Ids that rest become free seconds after their last flow has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `SERVICES` has no free row.
    #[error(
        "service {0}: no row is free in SERVICES; removed services keep theirs until their flows have ended"
    )]
    NoServiceId(ServiceAddress),
    /// `BACKENDS` has no free row.
    #[error(
        "backend {0}: no row is free in BACKENDS; removed backends keep theirs until their flows have ended"
    )]
    NoBackendId(std::net::SocketAddr),
    /// `INTERFACES` has no free row.
    #[error(
        "interface {0}: no row is free in INTERFACES; removed interfaces keep theirs until their flows have ended"
    )]
    NoInterfaceSlot(String),
    /// `SLOTS` has no room.
    #[error(
        "service {service}: no {wanted} slots in a row are free in SLOTS ({free} are free in all, the longest run is \
         {longest}); its old slots stay in force; use fewer distinct pools or fewer backends"
    )]
    ArenaFull {
        /// The first service that needs them.
        service: ServiceAddress,
        /// Slots that are needed.
        wanted: u32,
        /// Slots that are free.
        free: u32,
        /// The longest run of them.
        longest: u32,
    },
}
