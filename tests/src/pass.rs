//! A program that passes every frame, for veth ends that have to be able to receive what XDP sends them.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};

use crate::link::Interface;

/// The object of the programs that serve the suites and not the product.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/harness.o"));

/// `XDP_PASS` on an interface, taken off when dropped.
///
/// A veth end takes frames from `XDP_TX` or a redirect only through its NAPI ring, and has one only with a program on
/// it: without, every such frame is lost and the sender's counters still look well. `gro on` gives it a ring too, but
/// then `XDP_TX` back to it stalls without any error.
pub struct XdpPass {
    _object: Ebpf,
}

impl XdpPass {
    /// Loads the program and attaches it natively.
    ///
    /// # Errors
    /// Those of loading and attaching, with the interface.
    pub fn attach(interface: Interface<'_>) -> Result<Self> {
        let place = format!(
            "XDP_PASS on {} in {}",
            interface.name,
            interface.netns.name()
        );
        let mut object = Ebpf::load(OBJECT).with_context(|| place.clone())?;
        let program: &mut Xdp = object
            .program_mut("xdp_pass")
            .context("no program `xdp_pass` in harness.o")?
            .try_into()?;
        program.load().with_context(|| place.clone())?;
        interface
            .netns
            .run(|| program.attach(interface.name, XdpMode::Driver).map(drop))?
            .context(place)?;
        Ok(Self { _object: object })
    }
}
