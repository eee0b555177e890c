//! The networks of live traffic: a balancer, or what stands in its place, between frames that come and frames that go.
//!
//! ```text
//! one-arm:  client ── eth0 [carrier]            two-arm:  client ── front [carrier] back ── backends
//! ```
//!
//! There is no bridge, which would cost more than what is measured. In one-arm the client's end stands for the backends
//! too. Every end has a sink on it, so that nothing but the carrier ever makes a socket buffer of a frame.

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::xdp::DevMap;
use aya::programs::XdpMode;

use super::end::{End, index};
use super::nftables;
use crate::bench::object::{map, xdp};
use crate::bench::world::configure;
use crate::link::{self, Interface};
use crate::netns::Netns;
use crate::pass::{self, XdpPass};
use crate::program::{INGRESS, OTHER, OUR_ADDRESS, OUR_MAC, Program};
use crate::topology::Arms;

/// What carries the frames.
pub(super) enum Carrier {
    /// The balancer's own program.
    Balancer(Box<Program>),
    /// The least that a program could do.
    Bare { _object: Ebpf },
    /// The kernel, by its rules for destination NAT. Each end has to be able to receive frames.
    Nftables { _passes: Vec<XdpPass> },
}

impl Carrier {
    /// The balancer's program.
    ///
    /// # Errors
    /// Where something else carries the frames.
    pub(super) fn program(&mut self) -> Result<&mut Program> {
        match self {
            Self::Balancer(program) => Ok(program),
            Self::Bare { .. } | Self::Nftables { .. } => bail!("no balancer here"),
        }
    }
}

/// What kind of carrier a scene is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`Carrier::Balancer`], with a flow table of so many entries.
    Balancer { flow_entries: u32 },
    /// [`Carrier::Bare`].
    Bare,
    /// [`Carrier::Nftables`].
    Nftables,
}

/// A network; gone when dropped.
pub(super) struct Scene {
    /// Where clients are.
    pub(super) client: End,
    /// Where backends are; in one-arm they are where clients are.
    backend: Option<End>,
    /// What is measured.
    pub(super) carrier: Carrier,
    middle: Netns,
}

impl Scene {
    /// Makes a network.
    ///
    /// # Errors
    /// Those of the commands and of the kernel.
    pub(super) fn new(object: &[u8], arms: Arms, kind: Kind) -> Result<Self> {
        let middle = Netns::new("carrier")?;
        let interfaces = interfaces(arms);
        let mut ends = Vec::new();
        for (role, name) in ["clients", "backends"].into_iter().zip(interfaces) {
            let outside = Netns::new(role)?;
            let inside = Interface {
                netns: &middle,
                name,
            };
            let outside = Interface {
                netns: &outside,
                name: "eth0",
            };
            link::veth(inside, outside)?;
            inside.set_mac(OUR_MAC)?;
            ends.push(End::new(outside)?);
        }
        let carrier = match kind {
            Kind::Balancer { flow_entries } => balancer(object, flow_entries, &middle, interfaces)?,
            Kind::Bare => bare(&middle, interfaces)?,
            Kind::Nftables => {
                let attach = |name: &&str| {
                    XdpPass::attach(Interface {
                        netns: &middle,
                        name,
                    })
                };
                let passes = interfaces.iter().map(attach).collect::<Result<_>>()?;
                nftables::configure(&middle, interfaces)?;
                Carrier::Nftables { _passes: passes }
            }
        };
        let mut ends = ends.into_iter();
        Ok(Self {
            client: ends.next().context("a network without a client")?,
            backend: ends.next(),
            carrier,
            middle,
        })
    }

    /// Where backends are.
    pub(super) fn backend(&mut self) -> &mut End {
        self.backend.as_mut().unwrap_or(&mut self.client)
    }

    /// Forgets every flow that the kernel tracks.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn forget_tracked(&self) -> Result<()> {
        nftables::forget(&self.middle)
    }
}

/// The carrier's interfaces, that towards the client first.
fn interfaces(arms: Arms) -> &'static [&'static str] {
    match arms {
        Arms::One => &["eth0"],
        Arms::Two => &["front", "back"],
    }
}

fn balancer(object: &[u8], flow_entries: u32, netns: &Netns, names: &[&str]) -> Result<Carrier> {
    let mut program = Program::load_with_flow_entries(object, flow_entries)?;
    let mut slots = Vec::new();
    for (slot, name) in [INGRESS, OTHER].into_iter().zip(names) {
        let index = index(Interface { netns, name })?;
        program.set_interface(slot, index, OUR_MAC, OUR_ADDRESS)?;
        netns.run(|| program.set_device(slot, index))??;
        slots.push(slot);
    }
    configure(&mut program, slots.last().copied().unwrap_or(INGRESS))?;
    let data_plane = program.data_plane()?;
    for name in names {
        let attach = || data_plane.attach(name, XdpMode::Driver).map(drop);
        netns.run(attach)?.context("attaching the balancer")?;
    }
    Ok(Carrier::Balancer(Box::new(program)))
}

/// One interface reflects; of two, the first sends to the second.
fn bare(netns: &Netns, names: &[&str]) -> Result<Carrier> {
    let mut object = Ebpf::load(pass::OBJECT).context("loading the harness' object")?;
    if let [_, back] = names {
        let index = index(Interface { netns, name: back })?;
        let mut across = DevMap::try_from(map(&mut object, "ACROSS")?)?;
        netns.run(|| across.set(0, index, None, 0))??;
    }
    let name = if names.len() == 1 { "reflect" } else { "cross" };
    let program = xdp(&mut object, name)?;
    program.load()?;
    for name in names {
        let attach = || program.attach(name, XdpMode::Driver).map(drop);
        netns.run(attach)?.context("attaching the bare program")?;
    }
    Ok(Carrier::Bare { _object: object })
}
