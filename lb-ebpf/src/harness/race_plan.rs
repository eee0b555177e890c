//! What the program `race` sends and counts. One source for it and for the suite, which includes this file.
//!
//! Each flow has a service of its own and each service backends of its own, so that a packet that leaves by another
//! flow's recipe shows. Which of the service's backends a flow gets, the rotation decides, so that a recipe is not a
//! function of the 5-tuple.
//!
//! Addresses and ports are a packet's bytes read as one word in native order.

/// Flows at a time, a power of two. Those of odd numbers are UDP, the others TCP.
pub(crate) const FLOWS: usize = 64;
/// Backends of each flow's service, numbered from 1.
pub(crate) const BACKENDS: u8 = 4;
/// Port of every service.
pub(crate) const SERVICE_PORT: u16 = 80;
/// Port of the backends of number 0; the others follow.
pub(crate) const BACKEND_PORT: u16 = 8_000;
/// A client's port in [`Lane::CROWD`].
pub(crate) const CLIENT_PORT: u16 = 20_000;

/// The last byte of an address of flow `flow` is `last`.
pub(crate) const fn vip(flow: u8) -> [u8; 4] {
    [192, 0, 2, flow]
}

/// Address of a flow's client.
pub(crate) const fn client(flow: u8) -> [u8; 4] {
    [198, 51, 100, flow]
}

/// Address of a backend of a flow's service.
pub(crate) const fn backend(flow: u8, number: u8) -> [u8; 4] {
    [10, 2, flow, number]
}

/// MAC address of that backend.
pub(crate) const fn backend_mac(flow: u8, number: u8) -> [u8; 6] {
    [2, 0, 0, 1, flow, number]
}

/// MAC address that a flow's client sends from; it has two.
pub(crate) const fn client_mac(flow: u8, which: u8) -> [u8; 6] {
    [2, 0, 0, 2, flow, which]
}

/// What a CPU does, and what came of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// [`Lane::CROWD`] or [`Lane::PACE`].
    pub(crate) mode: u32,
    /// 0 or 1.
    pub(crate) number: u32,
    /// State of the generator of random packets.
    pub(crate) random: u64,
    /// Step that is next in [`Lane::PACE`].
    pub(crate) step: u64,
    /// Packets that left, by [`Lane::FORWARD`] and [`Lane::REVERSE`].
    pub(crate) sent: [u64; 2],
    /// Packets that were dropped.
    pub(crate) dropped: u64,
    /// Replies that found no flow.
    pub(crate) passed: u64,
    /// Rounds in which the other CPU did not come.
    pub(crate) waited: u64,
    /// Flows of which both CPUs' backends were compared.
    pub(crate) compared: u64,
    /// What must not be, by [`Fault`].
    pub(crate) faults: [u64; 16],
    /// The first of them: which, the flow, the backend or action, and the step or random number.
    pub(crate) first: [u64; 4],
    /// Backend that each flow's packets went to last.
    pub(crate) seen: [u8; FLOWS],
    /// How often that changed.
    pub(crate) moves: [u32; FLOWS],
}

impl Lane {
    /// Random packets of all flows, which are many more than the table has room for.
    pub(crate) const CROWD: u32 = 0;
    /// Both CPUs do the same step at the same time: a flow that is new, then its answer, then its end.
    pub(crate) const PACE: u32 = 1;

    /// From the client.
    pub(crate) const FORWARD: usize = 0;
    /// From the backend.
    pub(crate) const REVERSE: usize = 1;
}

/// Where a CPU is in [`Lane::PACE`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meeting {
    /// The step that it is ready for.
    pub(crate) step: u64,
    /// The backend that its first packet of the flow went to, 0 where it was dropped.
    pub(crate) backend: u64,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// The program was not reached, or said what it can't say of such a packet.
    Action = 0,
    /// A client's packet left for a backend of another flow.
    ForeignBackend = 1,
    /// A reply left for another client, or from another VIP.
    ForeignClient = 2,
    /// A port that does not go with the address.
    Port = 3,
    /// A MAC address that does not go with the address.
    Mac = 4,
    /// What should have stayed, or the TTL.
    Rest = 5,
    /// Checksum of the IPv4 header.
    IpChecksum = 6,
    /// Checksum of TCP or UDP.
    TransportChecksum = 7,
    /// Two CPUs sent one flow to two backends.
    TwoBackends = 8,
    /// A flow that lives had no entry for its reply.
    HalfFlow = 9,
}
