//! Commands to the maintenance program: a packet of [`LENGTH`] bytes, the answer written into it.

/// Bytes of a command; the kernel takes no shorter packet than an Ethernet header.
pub const LENGTH: usize = 64;
/// Where the command's code stands, one byte.
pub const CODE: usize = 0;
/// Where an answer of 8 bytes in native order begins.
pub const ANSWER: usize = 8;

/// Answers with `jiffies64`, in ticks.
pub const CLOCK: u8 = 1;
