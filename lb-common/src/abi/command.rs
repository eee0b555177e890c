//! Commands to the maintenance program: a packet of [`LENGTH`] bytes, the answer written into it.

/// Bytes of a command; the kernel takes no shorter packet than an Ethernet header.
pub const LENGTH: usize = 64;
/// Where the command's code stands, one byte.
pub const CODE: usize = 0;
/// Where an answer of 8 bytes in native order begins.
pub const ANSWER: usize = 8;

/// Answers with `jiffies64`, in ticks.
pub const CLOCK: u8 = 1;
/// Frees the entries of a bucket of the flow table that are older than [`crate::table::ANCIENT_TICKS`].
pub const EXPIRE: u8 = 2;
/// Where the index of that bucket stands, four bytes in native order.
pub const BUCKET: usize = 4;
