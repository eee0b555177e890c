//! The object: loads its programs with the pinned maps, and runs those that the agent calls itself.

use std::{io, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader, TestRun, TestRunOptions,
    programs::{ProgramError, ProgramFd, ProgramInfo, SchedClassifier, Xdp},
};
use lb_common::abi::command;
use tokio::task::AbortHandle;

use super::{
    control::{self, CONTROL},
    events::watch,
    layout::{Shape, buckets},
    reasons::NamedReasons,
};
use crate::model::{DataPlane, DataPlaneLog};

/// Entry point for packets.
const PACKETS: &str = "lb";
/// Entry point for commands.
const MAINTENANCE: &str = "maintenance";
/// Sends a frame out of an interface.
const ANNOUNCE: &str = "announce";
/// How much of the verifier's words is shown.
const VERIFIER_LINES: usize = 20;

/// Why the object can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel's verifier refuses a program.
    #[error("the kernel refuses the program `{program}`: {cause}\n{log}\n   help: {help}")]
    Verifier {
        /// Entry point.
        program: &'static str,
        /// What the system call said.
        cause: std::io::Error,
        /// The verifier's last lines.
        log: String,
        /// What to do.
        help: &'static str,
    },
    /// A program can't be loaded for another reason.
    #[error("can't load the program `{program}`")]
    Program {
        /// Entry point.
        program: &'static str,
        /// Why.
        #[source]
        cause: ProgramError,
    },
    /// The object or one of its maps.
    #[error("can't load the data plane's object: {}", root(.0))]
    Object(#[source] EbpfError),
    /// The control tables in force.
    #[error("can't read the map {CONTROL}: {0}")]
    Control(#[source] io::Error),
    /// The object has no such program.
    #[error("the data plane's object has no program `{0}`; the agent was built with another one")]
    Absent(&'static str),
}

/// The innermost cause: the outer ones only say that something failed.
fn root(error: &EbpfError) -> String {
    let mut cause: &dyn std::error::Error = error;
    let mut words = error.to_string();
    while let Some(source) = cause.source() {
        cause = source;
        words = format!("{words}: {cause}");
    }
    words
}

/// The loaded object.
#[derive(Debug)]
pub(super) struct Program {
    ebpf: Ebpf,
    /// Shows what it logs, where it logs.
    log: Option<LogReader>,
}

/// A program that was loaded beside the one in force.
#[derive(Debug)]
pub struct Fresh {
    /// What it was loaded with.
    pub(super) settings: DataPlane,
    /// `None`: of a data plane of values.
    pub(super) program: Option<Program>,
}

/// Reads the program's log for as long as it lives.
#[derive(Debug)]
struct LogReader(AbortHandle);

impl Drop for LogReader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Program {
    /// Reads the object and joins it with the maps that are pinned in `directory`; makes and pins those that are not there,
    /// but for the control tables, which must be. Nothing is loaded yet.
    ///
    /// What the control tables hold is read and written again: nobody else may write them meanwhile.
    ///
    /// `flow_seed` is the secret of the flow table's hash, the one that its entries were placed by.
    pub(super) fn read(
        directory: &Path,
        shapes: &[Shape],
        settings: DataPlane,
        flow_seed: u64,
    ) -> Result<Self, LoadError> {
        let mask = buckets(settings.flow_entries) - 1;
        let level = log_level(settings.log);
        let mut loader = EbpfLoader::new();
        loader.override_global("FLOW_MASK", &mask, true);
        loader.override_global("FLOW_SEED", &flow_seed, true);
        loader.override_global(aya_log::LEVEL, &level, true);
        for shape in shapes {
            let name = match shape.name {
                CONTROL => control::SECTION,
                name => name,
            };
            loader.map_pin_path(name, directory.join(shape.name));
            loader.map_max_entries(name, shape.max_entries);
        }
        let control = control::in_force(directory).map_err(LoadError::Control)?;
        loader.override_global(control::SYMBOL, control.as_slice(), true);
        let ebpf = loader.load(crate::OBJECT).map_err(LoadError::Object)?;
        Ok(Self { ebpf, log: None })
    }

    /// Has the kernel verify and load the programs, which takes as long as the verifier takes, and shows from then on what they
    /// log. Must be called inside a tokio runtime.
    pub(super) fn load(&mut self, settings: DataPlane) -> Result<(), LoadError> {
        for name in [PACKETS, MAINTENANCE] {
            let program = self.xdp_mut(name)?;
            program.load().map_err(|cause| refusal(name, cause))?;
        }
        let announce = self
            .ebpf
            .program_mut(ANNOUNCE)
            .ok_or(LoadError::Absent(ANNOUNCE))?;
        let announce: &mut SchedClassifier = announce
            .try_into()
            .map_err(|cause| refusal(ANNOUNCE, cause))?;
        announce.load().map_err(|cause| refusal(ANNOUNCE, cause))?;
        // A program that logs nothing needs no reader.
        if settings.log != DataPlaneLog::Off {
            self.log = self.follow_log();
        }
        Ok(())
    }

    fn follow_log(&mut self) -> Option<LogReader> {
        let logger = match aya_log::EbpfLogger::init_with_logger(&mut self.ebpf, NamedReasons) {
            Ok(logger) => logger,
            Err(error) => {
                tracing::warn!(%error, "what the program logs can't be shown");
                return None;
            }
        };
        let task = async move {
            let mut logger = watch(logger)?;
            loop {
                let mut guard = logger.readable_mut().await?;
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
        };
        let task = tokio::spawn(async move {
            let Err::<std::convert::Infallible, io::Error>(error) = task.await;
            tracing::warn!(%error, "what the program logs is no longer shown");
        });
        Some(LogReader(task.abort_handle()))
    }

    /// The program for packets.
    pub(super) fn fd(&self) -> Result<&ProgramFd, ProgramError> {
        self.xdp(PACKETS)?.fd()
    }

    /// What the kernel says of the program for packets.
    pub(super) fn info(&self) -> Result<ProgramInfo, ProgramError> {
        self.xdp(PACKETS)?.info()
    }

    /// `jiffies64`, in ticks.
    pub(super) fn ticks(&self) -> Result<u64, ProgramError> {
        let mut packet = [0_u8; command::LENGTH];
        packet[command::CODE] = command::CLOCK;
        let answer = self.command(&packet)?;
        let ticks = std::array::from_fn(|byte| answer[command::ANSWER + byte]);
        Ok(u64::from_ne_bytes(ticks))
    }

    /// Frees the entries of a bucket of the flow table that are older than [`lb_common::table::ANCIENT_TICKS`].
    pub(super) fn expire(&self, bucket: u32) -> Result<(), ProgramError> {
        let mut packet = [0_u8; command::LENGTH];
        packet[command::CODE] = command::EXPIRE;
        packet[command::BUCKET..command::BUCKET + 4].copy_from_slice(&bucket.to_ne_bytes());
        self.command(&packet).map(drop)
    }

    fn command(
        &self,
        packet: &[u8; command::LENGTH],
    ) -> Result<[u8; command::LENGTH], ProgramError> {
        let mut answer = [0_u8; command::LENGTH];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut answer),
            ..TestRunOptions::default()
        };
        self.xdp(MAINTENANCE)?.test_run(options)?;
        Ok(answer)
    }

    /// Sends a frame out of an interface of the calling thread's network namespace.
    pub(super) fn send(&self, ifindex: u32, frame: &[u8]) -> Result<(), ProgramError> {
        /// `struct __sk_buff` of `include/uapi/linux/bpf.h`: its length, and where `ifindex` stands.
        const CONTEXT: usize = 192;
        const IFINDEX: usize = 40;
        let mut context = [0_u8; CONTEXT];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program = self.ebpf.program(ANNOUNCE).ok_or(ProgramError::NotLoaded)?;
        let program: &SchedClassifier = program.try_into()?;
        let result = program.test_run(options)?;
        Ok(sent(result.return_value.cast_signed())?)
    }

    fn xdp(&self, name: &'static str) -> Result<&Xdp, ProgramError> {
        self.ebpf
            .program(name)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()
    }

    fn xdp_mut(&mut self, name: &'static str) -> Result<&mut Xdp, LoadError> {
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Absent(name))?;
        program.try_into().map_err(|cause| LoadError::Program {
            program: name,
            cause,
        })
    }
}

/// What `bpf_clone_redirect` returned: nothing, a negated error number, or what the interface's queue said
/// (`NET_XMIT_*` of `include/linux/netdevice.h`).
fn sent(returned: i32) -> io::Result<()> {
    const DROP: i32 = 1;
    const CONGESTION: i32 = 2;
    match returned {
        // On its way; the queue asks to send less.
        0 | CONGESTION => Ok(()),
        ..0 => Err(io::Error::from_raw_os_error(-returned)),
        DROP => Err(io::Error::other("the interface's queue dropped the frame")),
        other => Err(io::Error::other(format!(
            "the interface's queue answered {other}"
        ))),
    }
}

/// The level as aya-log counts it.
fn log_level(log: DataPlaneLog) -> u8 {
    match log {
        DataPlaneLog::Off => 0,
        DataPlaneLog::Error => aya_log::Level::Error as u8,
        DataPlaneLog::Info => aya_log::Level::Info as u8,
        DataPlaneLog::Debug => aya_log::Level::Debug as u8,
    }
}

fn refusal(program: &'static str, cause: ProgramError) -> LoadError {
    match cause {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let help = match io_error.raw_os_error() {
                Some(libc::EPERM) => "give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
                _ => {
                    "use Linux 6.1 or newer; if this is one, please report these lines and `uname -r`"
                }
            };
            LoadError::Verifier {
                program,
                cause: io_error,
                log: last_lines(&verifier_log.to_string()),
                help,
            }
        }
        cause => LoadError::Program { program, cause },
    }
}

/// The last lines of the verifier's log, indented.
fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(VERIFIER_LINES);
    lines[from..]
        .iter()
        .map(|line| format!("      {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_lines_are_shown() {
        let lines: Vec<_> = (1..=30).map(|line| format!("line {line}")).collect();
        let log = lines.join("\n\n");
        let shown = last_lines(&log);
        assert!(
            shown.starts_with("      line 11\n") && shown.ends_with("line 30"),
            "{shown}"
        );
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn a_frame_that_the_queue_drops_is_told_from_an_error_of_the_kernel() {
        assert!(sent(0).is_ok());
        assert!(sent(2).is_ok(), "congestion is not loss");
        let error = sent(-libc::ENODEV).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let error = sent(1).unwrap_err();
        assert_eq!(error.raw_os_error(), None);
        assert!(error.to_string().contains("dropped"), "{error}");
    }
}
