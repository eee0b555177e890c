//! The table on the host: the rules one by one, whom an insert evicts, every interleaving of a few threads, and many
//! threads for a while.
//!
//! The tests know the table by [`find`](super::find), [`insert`](super::insert()) and what lies in an entry, and nothing
//! of where a key's entries may lie.

mod ages;
mod flows;
mod host;
mod interleavings;
mod late;
mod model;
mod rules;
mod scenario;
mod threads;
mod victims;

use host::Host;
