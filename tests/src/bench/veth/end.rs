//! One end of a link: frames made by the kernel leave it, and frames that arrive at it are counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, XdpMode};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::bench::cpu;
use crate::bench::object::{Row, map, xdp};
use crate::bench::plan::{Arrived, FRAME, Plan};
use crate::link::Interface;
use crate::netns::Netns;
use crate::pass;

/// Frames that the generator hands over at once.
const BATCH: u32 = 64;
/// How long the last frames may be on their way.
const ON_THE_WAY: Duration = Duration::from_millis(100);

/// An interface with a sink on it and a generator beside it.
pub(super) struct End {
    netns: Netns,
    index: u32,
    object: Ebpf,
    /// Where frames are made.
    cpu: usize,
}

impl End {
    /// Puts a sink on an interface.
    ///
    /// # Errors
    /// Those of loading and attaching.
    pub(super) fn new(interface: Interface<'_>) -> Result<Self> {
        let mut object = Ebpf::load(pass::OBJECT).context("loading the harness' object")?;
        xdp(&mut object, "generate")?.load()?;
        let sink = xdp(&mut object, "sink")?;
        sink.load()?;
        let attach = || sink.attach(interface.name, XdpMode::Driver).map(drop);
        interface.netns.run(attach)?.context("attaching the sink")?;
        Ok(Self {
            netns: interface.netns.clone(),
            index: index(interface)?,
            object,
            cpu: cpu::chosen()?,
        })
    }

    /// Sends frames of a plan, whose position moves on, and says how long that took one CPU.
    ///
    /// What carries the frames works on that CPU in between, in passing. Times at which the CPU did something else are
    /// not counted.
    ///
    /// # Errors
    /// Those of the kernel's test run.
    pub(super) fn send(&mut self, plan: &mut Plan, frames: u32) -> Result<Duration> {
        self.set_plan(plan)?;
        let frame = [0; FRAME];
        let context = context(self.index)?;
        let program = xdp(&mut self.object, "generate")?;
        let cpu = self.cpu;
        let run = || -> Result<Duration> {
            cpu::pin(cpu)?;
            let mut options = TestRunOptions::new();
            options.data_in = Some(&frame);
            options.ctx_in = Some(&context);
            options.repeat = frames;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let result = program.test_run(options).context("sending frames")?;
            // The kernel gives whole nanoseconds a frame, rounded down.
            Ok((result.duration + Duration::from_nanos(1) / 2) * frames)
        };
        let took = self.netns.run(run)??;
        *plan = Array::<_, Row<Plan>>::try_from(map(&mut self.object, "PLAN")?)?
            .get(&0, 0)?
            .0;
        Ok(took)
    }

    /// Says which destination port the frames that arrive should have.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn expect(&mut self, plan: &Plan) -> Result<()> {
        self.set_plan(plan)
    }

    /// What has arrived since the end was made.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn arrived(&mut self) -> Result<Arrived> {
        let rows = PerCpuArray::<_, Row<Arrived>>::try_from(map(&mut self.object, "ARRIVED")?)?;
        let mut sum = Arrived::default();
        for cpu in rows.get(&0, 0)?.iter() {
            sum.wanted += cpu.0.wanted;
            sum.others += cpu.0.others;
        }
        Ok(sum)
    }

    /// What has arrived since `before`, once nearly all of so many frames have, or no more do.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn last_arrived(&mut self, frames: u32, before: Arrived) -> Result<Arrived> {
        let deadline = Instant::now() + ON_THE_WAY;
        loop {
            let now = self.arrived()?;
            let since = Arrived {
                wanted: now.wanted - before.wanted,
                others: now.others - before.others,
            };
            if since.is_nearly(frames) || Instant::now() > deadline {
                return Ok(since);
            }
        }
    }

    fn set_plan(&mut self, plan: &Plan) -> Result<()> {
        let mut rows = Array::<_, Row<Plan>>::try_from(map(&mut self.object, "PLAN")?)?;
        Ok(rows.set(0, Row(*plan), 0)?)
    }
}

impl Arrived {
    /// Whether nearly all of so many frames arrived with the port that was wanted.
    pub(super) fn is_nearly(self, frames: u32) -> bool {
        self.wanted >= u64::from(frames) * 99 / 100
    }
}

/// The index of an interface in its namespace.
///
/// # Errors
/// Where there is none of that name.
pub(in crate::bench) fn index(interface: Interface<'_>) -> Result<u32> {
    let find = || {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        netdevice::name_to_index(&socket, interface.name)
    };
    interface
        .netns
        .run(find)?
        .with_context(|| interface.name.to_owned())
}

/// A `struct xdp_md`: the frame's end, and the interface that it seems to have come from, by which it leaves.
fn context(ingress: u32) -> Result<[u8; 24]> {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&u32::try_from(FRAME)?.to_ne_bytes());
    context[12..16].copy_from_slice(&ingress.to_ne_bytes());
    Ok(context)
}
