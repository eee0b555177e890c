//! Two CPUs at the flow table at once: the program `race` of the harness' object makes packets, runs the data plane on
//! them and looks at what leaves, a few hundred nanoseconds each, so that races that are rare happen all the time.

use std::{
    fmt,
    net::SocketAddrV4,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, Pod,
    maps::{Array, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{TestRun, TestRunOptions, Xdp},
    util::nr_cpus,
};
use lb_common::{abi::Protocol, table::Event};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    frames::Mac,
    pass,
    program::{INGRESS, Program},
};

#[path = "../../lb-ebpf/src/harness/race_plan.rs"]
#[expect(dead_code, reason = "shared with the program, which uses the rest")]
mod plan;

use plan::{BACKEND_PORT, BACKENDS, FLOWS, Fault, Lane, Meeting, SERVICE_PORT};

/// What the CPUs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Race {
    /// Random packets of many more flows than the table has room for.
    Crowd,
    /// The same packets at the same time: flows that are new, their answers, their end.
    Pace,
}

/// What came of it, of both CPUs.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Packets that were run.
    pub packets: u64,
    /// Clients' packets that left.
    pub forward: u64,
    /// Replies that left.
    pub reverse: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Replies that found no flow.
    pub passed: u64,
    /// Flows of which both CPUs' backends were compared.
    pub compared: u64,
    /// Flows that the data plane says it made.
    pub made: u64,
    /// What must not be, in words.
    pub faults: Vec<String>,
}

/// The data plane and the program that runs it.
pub struct Track {
    /// The data plane.
    pub program: Program,
    harness: Ebpf,
    cpus: [usize; 2],
    /// What is run, and how many flows there were before.
    race: Race,
    made_before: u64,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Row<T>(T);

// SAFETY: `repr(C)`, of integers; what padding there is nobody reads.
unsafe impl Pod for Row<Lane> {}
// SAFETY: as above.
unsafe impl Pod for Row<Meeting> {}

/// Every fault, in the order of their rows.
const FAULTS: [Fault; 10] = [
    Fault::Action,
    Fault::ForeignBackend,
    Fault::ForeignClient,
    Fault::Port,
    Fault::Mac,
    Fault::Rest,
    Fault::IpChecksum,
    Fault::TransportChecksum,
    Fault::TwoBackends,
    Fault::HalfFlow,
];
/// Rounds of one call into the kernel.
const ROUNDS: u32 = 20_000;

impl Track {
    /// Loads the data plane, with a flow table of so many entries, and makes the services of all flows.
    ///
    /// # Errors
    /// What the kernel says, or where there are no two CPUs.
    pub fn new(object: &[u8], entries: u32) -> Result<Self> {
        let mut program = Program::load_with_flow_entries(object, entries)?;
        let mut id = 0;
        for flow in 0..u8::try_from(FLOWS)? {
            let mut backends = Vec::new();
            for number in 1..=BACKENDS {
                id += 1;
                backends.push(id);
                let port = BACKEND_PORT + u16::from(number);
                let address = SocketAddrV4::new(plan::backend(flow, number).into(), port);
                let mac = Mac(plan::backend_mac(flow, number));
                program.set_backend(id, address, Some((mac, INGRESS)))?;
            }
            let vip = SocketAddrV4::new(plan::vip(flow).into(), SERVICE_PORT);
            let protocol = if flow & 1 == 1 {
                Protocol::Udp
            } else {
                Protocol::Tcp
            };
            program.set_service(u32::from(flow) + 1, vip, protocol, &backends)?;
        }
        let mut harness = Ebpf::load(pass::OBJECT).context("loading the harness' object")?;
        let race: &mut Xdp = harness
            .program_mut("race")
            .context("no program `race`")?
            .try_into()?;
        race.load().context("verifying `race`")?;
        let under_test = harness.map_mut("UNDER_TEST").context("no UNDER_TEST")?;
        ProgramArray::try_from(under_test)?.set(0, program.data_plane()?.fd()?, 0)?;
        let allowed = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let cpus = [allowed.next(), allowed.next()];
        let [Some(first), Some(second)] = cpus else {
            anyhow::bail!("a race needs two CPUs, and this process may use one");
        };
        Ok(Self {
            program,
            harness,
            cpus: [first, second],
            race: Race::Crowd,
            made_before: 0,
        })
    }

    /// Runs packets on two CPUs for so long.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(&mut self, race: Race, time: Duration) -> Result<Report> {
        self.set_up(race)?;
        self.race = race;
        self.made_before = self.made()?;
        self.go_on(time)
    }

    /// Goes on with the race that was run last, and reports on all of it.
    ///
    /// # Errors
    /// As [`Track::run`].
    pub fn go_on(&mut self, time: Duration) -> Result<Report> {
        let program: &Xdp = self
            .harness
            .program("race")
            .context("no program `race`")?
            .try_into()?;
        let (start, until) = (Barrier::new(2), Instant::now() + time);
        let lap = |cpu: usize| -> Result<()> {
            let mut one = CpuSet::new();
            one.set(cpu);
            sched_setaffinity(None, &one).context("staying on one CPU")?;
            start.wait();
            while Instant::now() < until {
                let mut options = TestRunOptions::new();
                let frame = [0; 60];
                options.data_in = Some(&frame);
                options.repeat = ROUNDS;
                let result = program.test_run(options)?;
                ensure!(result.return_value == 2, "`race` gave up: {result:?}");
            }
            Ok(())
        };
        thread::scope(|scope| {
            let lap = &lap;
            let threads = self.cpus.map(|cpu| scope.spawn(move || lap(cpu)));
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        let made = self.made()? - self.made_before;
        self.report(self.race, made)
    }

    fn set_up(&mut self, race: Race) -> Result<()> {
        let rows = self.harness.map_mut("MEETINGS").context("no MEETINGS")?;
        let mut rows = Array::<_, Row<Meeting>>::try_from(rows)?;
        for number in 0..2 {
            rows.set(number, Row(Meeting::default()), 0)?;
        }
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let lane = |cpu: usize| {
            let number = u32::from(cpu == self.cpus[1]);
            Row(Lane {
                mode: match race {
                    Race::Crowd => Lane::CROWD,
                    Race::Pace => Lane::PACE,
                },
                number,
                random: u64::from(number) + 1,
                // Beyond the 0 of a CPU that has not begun.
                step: 3,
                sent: [0; 2],
                dropped: 0,
                passed: 0,
                waited: 0,
                compared: 0,
                faults: [0; 16],
                first: [0; 4],
                seen: [0; FLOWS],
                moves: [0; FLOWS],
            })
        };
        let lanes = PerCpuValues::try_from((0..cpus).map(lane).collect::<Vec<_>>())?;
        let rows = self.harness.map_mut("LANE").context("no LANE")?;
        Ok(PerCpuArray::try_from(rows)?.set(0, lanes, 0)?)
    }

    /// Flows that the data plane made, of all services.
    fn made(&self) -> Result<u64> {
        let ids = 1..=u32::try_from(FLOWS)?;
        let rows = ids.map(|id| self.program.service_counters(id).new_flows);
        Ok(rows.sum())
    }

    fn report(&mut self, race: Race, made: u64) -> Result<Report> {
        let rows = self.harness.map("LANE").context("no LANE")?;
        let lanes = PerCpuArray::<_, Row<Lane>>::try_from(rows)?.get(&0, 0)?;
        let overflows = self.program.events(Event::Overflow);
        let mut report = Report {
            made,
            ..Report::default()
        };
        for cpu in self.cpus {
            let lane = &lanes[cpu].0;
            report.forward += lane.sent[Lane::FORWARD];
            report.reverse += lane.sent[Lane::REVERSE];
            report.dropped += lane.dropped;
            report.passed += lane.passed;
            report.compared += lane.compared;
            for (fault, count) in FAULTS.iter().zip(lane.faults) {
                if count > 0 {
                    let first = lane.first;
                    report.faults.push(format!(
                        "CPU {cpu}: {fault:?} {count} times; first of all {:?} of flow {} with {:#x} at {}",
                        FAULTS[usize::try_from(first[0])?],
                        first[1],
                        first[2],
                        first[3]
                    ));
                }
            }
            // A CPU sees each binding of a flow at most once, one after the other; a packet that overflowed has none.
            let moves: u64 = lane.moves.iter().map(|moves| u64::from(*moves)).sum();
            if moves > made + overflows {
                report.faults.push(format!(
                    "CPU {cpu}: flows moved {moves} times, {made} were made, {overflows} overflowed"
                ));
            }
        }
        report.packets = report.forward + report.reverse + report.dropped + report.passed;
        report.faults.extend(self.program.table_faults()?);
        if race == Race::Pace && made > report.compared + report.dropped + 2 * FLOWS as u64 {
            report.faults.push(format!(
                "{made} flows were made of {} 5-tuples",
                report.compared
            ));
        }
        Ok(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} packets: {} forward, {} replies, {} dropped, {} replies without a flow; {} flows made, {} compared",
            self.packets,
            self.forward,
            self.reverse,
            self.dropped,
            self.passed,
            self.made,
            self.compared
        )
    }
}
