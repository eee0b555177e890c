//! The program `replay` of the harness' object and the programs that it runs: a plan in, nanoseconds and verdicts out.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::object::{Row, map, xdp};
use super::plan::{FRAME, PACKETS, Plan, Tally};
use crate::netns::Netns;
use crate::pass;

/// The harness' object, loaded.
pub(super) struct Replay {
    object: Ebpf,
    /// Does nothing: under [`Replay::run`] it gives what everything but the program under test costs.
    pub(super) floor: ProgramFd,
    /// Reads a line of memory that the packet chooses.
    pub(super) line: ProgramFd,
    /// Where `replay` is attached; without packets.
    _netns: Netns,
}

/// The hash tables that packets are looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lookup {
    /// Of the calibration.
    Few,
    /// With many keys.
    Many,
}

impl Lookup {
    const ALL: [Self; 2] = [Self::Few, Self::Many];

    fn program(self) -> &'static str {
        match self {
            Self::Few => "lru_lookup",
            Self::Many => "lru_lookup_of_many",
        }
    }

    fn map(self) -> &'static str {
        match self {
            Self::Few => "CALIBRATION",
            Self::Many => "CALIBRATION_OF_MANY",
        }
    }
}

/// As large as the flow table of a busy balancer.
const LOOKUP_ENTRIES: u32 = 1 << 20;
/// As many lines as the flow table has entries that 500,000 flows fill to a half.
const LINES: u32 = 1 << 21;

/// What a run gave.
pub(super) struct Run {
    /// Nanoseconds a packet.
    pub(super) ns: f64,
    /// What the program said.
    pub(super) tally: Tally,
}

impl Replay {
    /// Loads the programs.
    ///
    /// # Errors
    /// What the kernel says of them.
    pub(super) fn load() -> Result<Self> {
        let mut object = EbpfLoader::new()
            .map_max_entries(Lookup::Few.map(), LOOKUP_ENTRIES)
            .map_max_entries(Lookup::Many.map(), LOOKUP_ENTRIES)
            .map_max_entries("LINES", LINES)
            .override_global("LINE_MASK", &(LINES - 1), true)
            .load(pass::OBJECT)
            .context("loading the harness' object")?;
        load(&mut object, "replay")?;
        let netns = reside(xdp(&mut object, "replay")?)?;
        let floor = load(&mut object, "floor")?;
        for table in Lookup::ALL {
            load(&mut object, table.program())?;
        }
        let line = load(&mut object, "line_read")?;
        Ok(Self {
            object,
            floor,
            line,
            _netns: netns,
        })
    }

    /// Runs `program` on `packets` packets (rounded up to whole rounds) of a plan, whose position moves on.
    ///
    /// # Errors
    /// Where the program was not reached, with what the kernel says.
    pub(super) fn run(
        &mut self,
        program: &ProgramFd,
        plan: &mut Plan,
        packets: u64,
    ) -> Result<Run> {
        ProgramArray::try_from(self.map("UNDER_TEST")?)?.set(0, program, 0)?;
        Array::try_from(self.map("PLAN")?)?.set(0, Row(*plan), 0)?;
        let before = self.tally()?;

        let rounds = u32::try_from(packets.div_ceil(PACKETS.into()))?;
        let mut options = TestRunOptions::new();
        let frame = [0; FRAME];
        options.data_in = Some(&frame);
        options.repeat = rounds;
        let result = xdp(&mut self.object, "replay")?.test_run(options)?;
        ensure!(result.return_value == 2, "`replay` gave up: {result:?}");

        *plan = Array::<_, Row<Plan>>::try_from(self.map("PLAN")?)?
            .get(&0, 0)?
            .0;
        let tally = since(&before, &self.tally()?);
        let ran = u64::from(rounds) * u64::from(PACKETS);
        let reached: u64 = tally.actions[..Tally::ROWS - 1].iter().sum();
        ensure!(
            reached == ran,
            "{reached} of {ran} packets reached the program: {tally:?}"
        );
        // The kernel divides by the number of rounds; a wall clock around the call moves in steps of a tick.
        let ns = nanoseconds(result.duration) / f64::from(PACKETS);
        Ok(Run { ns, tally })
    }

    /// The program that looks a packet up in a table.
    ///
    /// # Errors
    /// Its descriptor can't be had.
    pub(super) fn lookup(&mut self, table: Lookup) -> Result<ProgramFd> {
        let program = xdp(&mut self.object, table.program())?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Puts packets' keys into a table.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn remember(
        &mut self,
        table: Lookup,
        keys: impl Iterator<Item = [u32; 4]>,
    ) -> Result<()> {
        let mut map = HashMap::<_, [u32; 4], u64>::try_from(self.map(table.map())?)?;
        for key in keys {
            map.insert(key, 1, 0)?;
        }
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        let rows = PerCpuArray::<_, Row<Tally>>::try_from(self.map("TALLY")?)?;
        let mut sum = Tally::default();
        for cpu in rows.get(&0, 0)?.iter() {
            add(&mut sum.actions, &cpu.0.actions);
            add(&mut sum.strays, &cpu.0.strays);
        }
        Ok(sum)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        map(&mut self.object, name)
    }
}

/// Attaches a program where no packet comes by. The kernel has a short list of programs that it calls without an indirection,
/// those that are attached somewhere; to put one there for a test run alone, and to take it out, it waits for a grace period of RCU each
/// time, 50 ms together.
fn reside(program: &mut Xdp) -> Result<Netns> {
    let netns = Netns::new("replay")?;
    netns.ip("link set lo down")?;
    let attach = || program.attach("lo", XdpMode::Skb).map(drop);
    netns.run(attach)?.context("attaching `replay` to `lo`")?;
    Ok(netns)
}

fn load(object: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program = xdp(object, name)?;
    program
        .load()
        .with_context(|| format!("verifying {name}"))?;
    Ok(program.fd()?.try_clone()?)
}

fn since(before: &Tally, after: &Tally) -> Tally {
    let mut difference = *after;
    subtract(&mut difference.actions, &before.actions);
    subtract(&mut difference.strays, &before.strays);
    difference
}

fn add<const N: usize>(sum: &mut [u64; N], more: &[u64; N]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

fn subtract<const N: usize>(from: &mut [u64; N], less: &[u64; N]) {
    for (from, less) in from.iter_mut().zip(less) {
        *from -= less;
    }
}

fn nanoseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
