//! The real object under `BPF_PROG_TEST_RUN`: tables in, a frame in; verdict, frame and counters out.
//!
//! Without a context the kernel runs the program as if the frame had come from the loopback device of the caller's
//! namespace, index 1; so slot 1 of the tables is that one, and slot 2 is another interface.

mod limits;
mod rows;

use std::{env, fs, net::Ipv4Addr};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, Map},
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_common::{
    abi::{Control, FlowBucket, FlowCounters, FlowEntry, FlowKey, Recipe, WAYS, command},
    verdict::Verdict,
};

use lb_userspace::dataplane::{CounterRows, cpus};

use xtask::variables::OBJECT;

use crate::frames::{Frame, Mac};

mod table;

pub use table::Held;

/// Slot of the interface that every frame comes from.
pub const INGRESS: u8 = 1;
/// Slot of another interface.
pub const OTHER: u8 = 2;
/// Our MAC address on [`INGRESS`].
pub const OUR_MAC: Mac = crate::frames::DEFAULT_DESTINATION;
/// Our MAC address on [`OTHER`].
pub const OTHER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x22]);
/// Our address on [`INGRESS`].
pub const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Ticks a second that the tables state.
pub const TICKS_PER_SECOND: u32 = 250;

/// The object under test: the one that the agent embeds, or the file that [`OBJECT`] names.
///
/// # Errors
/// Those of reading the file.
pub fn object() -> Result<Vec<u8>> {
    let Some(path) = env::var_os(OBJECT) else {
        return Ok(lb_userspace::OBJECT.to_vec());
    };
    fs::read(&path).with_context(|| format!("reading the object {}", path.display()))
}

/// The program, loaded, with its maps.
pub struct Program {
    object: Ebpf,
    /// What the map of the control tables holds, or will: see [`Program::together`].
    control: Box<Row<Control>>,
    /// Whether the map is written later.
    deferred: bool,
    counters: CounterRows,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The XDP action.
    pub action: u32,
    /// The frame as the program left it.
    pub bytes: Vec<u8>,
    /// Verdicts that were counted during the run, by their names, each as often as it was.
    pub counted: Vec<&'static str>,
}

impl Outcome {
    /// The frame as the program left it, read back.
    ///
    /// # Panics
    /// If it is not a frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::parse(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A row of one of the crate's own maps; the orphan rule asks for a type of ours.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Row<T>(T);

// SAFETY: every structure of `lb_common::abi` is `repr(C)` without padding bytes the compiler may leave unset.
unsafe impl<T: Copy + 'static> Pod for Row<T> {}

impl Program {
    /// Loads `object` with tables that hold two interfaces and nothing else.
    ///
    /// # Errors
    /// What the kernel says of the program.
    pub fn load(object: &[u8]) -> Result<Self> {
        Self::load_with_flow_entries(object, 4_096)
    }

    /// [`Program::load`] with a flow table of another size, a power of two of at least 8 entries.
    ///
    /// # Errors
    /// What the kernel says of the program.
    pub fn load_with_flow_entries(object: &[u8], entries: u32) -> Result<Self> {
        let buckets = entries / WAYS;
        let mask = buckets - 1;
        let mut object = EbpfLoader::new()
            .override_global("AYA_LOG_LEVEL", &0u8, true)
            .override_global("FLOW_MASK", &mask, true)
            .map_max_entries("FLOWS", buckets)
            .map_max_entries("FLOW_PAIRS", buckets / 2)
            .map_max_entries("COUNTERS", cpus()?)
            .load(object)
            .context("loading the object")?;
        let control = Box::new(Row(Control::EMPTY));
        let counters = match object.map_mut("COUNTERS") {
            Some(Map::Array(map)) => CounterRows::of(map)?,
            _ => bail!("no array COUNTERS in the object"),
        };
        let mut program = Self {
            object,
            control,
            deferred: false,
            counters,
        };
        for name in ["lb", "maintenance"] {
            program
                .xdp(name)?
                .load()
                .with_context(|| format!("verifying {name}"))?;
        }
        program.set_config(0)?;
        program.set_interface(INGRESS, 1, OUR_MAC, OUR_ADDRESS)?;
        program.set_interface(OTHER, 2, OTHER_MAC, Ipv4Addr::UNSPECIFIED)?;
        // The redirect of a test run is never carried out; any device that exists will do.
        program.set_device(OTHER, 1)?;
        Ok(program)
    }

    /// Runs the data plane on a frame once.
    ///
    /// # Errors
    /// Those of the kernel's test run.
    pub fn run(&mut self, frame: &Frame) -> Result<Outcome> {
        self.run_bytes(&frame.bytes())
    }

    /// [`Program::run`] on any bytes, at least 14.
    ///
    /// # Errors
    /// Those of the kernel's test run.
    pub fn run_bytes(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = self.verdicts();
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = self.xdp("lb")?.test_run(options).context("test run")?;
        out.truncate(result.data_size_out as usize);
        let after = self.verdicts();
        let counted = before
            .into_iter()
            .zip(after)
            .flat_map(|((name, before), (_, after))| (before..after).map(move |_| name))
            .collect();
        Ok(Outcome {
            action: result.return_value,
            bytes: out,
            counted,
        })
    }

    /// `jiffies64`, by the maintenance program.
    ///
    /// # Errors
    /// Those of the kernel's test run, or a refusal of the program.
    pub fn jiffies(&mut self) -> Result<u64> {
        let mut frame = [0; command::LENGTH];
        frame[command::CODE] = command::CLOCK;
        let answer = self.command(&frame)?;
        Ok(u64::from_ne_bytes(
            answer[command::ANSWER..][..8].try_into()?,
        ))
    }

    /// Has the maintenance program free the ancient entries of every bucket.
    ///
    /// # Errors
    /// Those of the kernel's test run, or a refusal of the program.
    pub fn expire(&mut self) -> Result<()> {
        let buckets = Array::<_, Row<FlowBucket>>::try_from(self.map("FLOWS")?)?.len();
        for bucket in 0..buckets {
            let mut frame = [0; command::LENGTH];
            frame[command::CODE] = command::EXPIRE;
            frame[command::BUCKET..][..4].copy_from_slice(&bucket.to_ne_bytes());
            self.command(&frame)?;
        }
        Ok(())
    }

    fn command(&mut self, frame: &[u8; command::LENGTH]) -> Result<[u8; command::LENGTH]> {
        let mut out = [0; command::LENGTH];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = self.xdp("maintenance")?.test_run(options)?;
        ensure!(
            result.return_value == 2,
            "the maintenance program refused: {result:?}"
        );
        Ok(out)
    }

    /// The flow table.
    ///
    /// # Errors
    /// Those of the map.
    pub fn flows(&mut self) -> Result<Vec<(FlowKey, Recipe)>> {
        let buckets = Array::<_, Row<FlowBucket>>::try_from(self.map("FLOWS")?)?;
        let mut flows = Vec::new();
        for bucket in buckets.iter() {
            flows.extend(bucket?.0.entries.iter().filter_map(FlowEntry::read));
        }
        Ok(flows)
    }

    /// Counters of a service over all CPUs.
    #[must_use]
    pub fn service_counters(&self, id: u32) -> FlowCounters {
        self.counters.service(id)
    }

    /// Counters of a backend over all CPUs.
    #[must_use]
    pub fn backend_counters(&self, id: u16) -> FlowCounters {
        self.counters.backend(id.into())
    }

    /// The data plane, to be attached or called by another program.
    ///
    /// # Errors
    /// Where the object has none.
    pub fn data_plane(&mut self) -> Result<&mut Xdp> {
        self.xdp("lb")
    }

    /// Packets counted so far by the name of their verdict, over all CPUs.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counters.verdicts();
        Verdict::all()
            .map(|verdict| (verdict.name(), counts[verdict.index() as usize]))
            .collect()
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.object
            .map_mut(name)
            .with_context(|| format!("no map {name} in the object"))
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.object.program_mut(name);
        Ok(program
            .with_context(|| format!("no program {name} in the object"))?
            .try_into()?)
    }
}
