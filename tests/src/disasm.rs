//! A program as the kernel runs it: loaded, asked for its machine code, and written as text.
//!
//! Takes the name of a program of the product's object or of the harness', loads that one alone as the agent would with
//! its log off, and gives what the kernel made of it. Nothing is pinned or attached: the program is gone with its value.

mod btf;
mod info;
mod listing;
mod symbols;

use anyhow::{Context, Result, bail};
use aya::programs::{Program, ProgramFd};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{DEFAULT_FLOW_ENTRIES, PAIR, WAYS};

pub(crate) use self::btf::Btf;
pub use self::info::{Compiled, Function, Line};
pub use self::listing::{Listing, Summary};
pub use self::symbols::Symbols;
use crate::pass;

/// A loaded program.
pub struct Loaded {
    _object: Ebpf,
    fd: ProgramFd,
}

impl Loaded {
    /// Loads the program `name`, of the product's object or else of the harness'.
    ///
    /// # Errors
    /// Where no object has it, with the names of those that there are; where the kernel refuses it.
    pub fn load(name: &str) -> Result<Self> {
        let mut names = Vec::new();
        for bytes in [lb_userspace::OBJECT, pass::OBJECT] {
            let mut object = open(bytes)?;
            if let Some(program) = object.program_mut(name) {
                let fd = load(program).with_context(|| format!("loading `{name}`"))?;
                return Ok(Self {
                    _object: object,
                    fd,
                });
            }
            let mut these: Vec<_> = object.programs().map(|(name, _)| name.to_owned()).collect();
            these.sort();
            names.extend(these);
        }
        bail!("no program `{name}`; there are {}", names.join(", "))
    }

    /// What the kernel's compiler made of it.
    ///
    /// # Errors
    /// Where the kernel does not tell, or has no compiler for this machine.
    pub fn compiled(&self) -> Result<Compiled> {
        Compiled::of(&self.fd)
    }
}

/// With the constants that the agent sets where nothing is configured.
fn open(object: &[u8]) -> Result<Ebpf> {
    let buckets = DEFAULT_FLOW_ENTRIES / WAYS;
    EbpfLoader::new()
        .override_global("AYA_LOG_LEVEL", &0u8, false)
        .override_global("FLOW_MASK", &(buckets - 1), false)
        .map_max_entries("FLOWS", buckets)
        .map_max_entries("FLOW_PAIRS", DEFAULT_FLOW_ENTRIES / PAIR)
        .load(object)
        .context("loading the object")
}

fn load(program: &mut Program) -> Result<ProgramFd> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        other => bail!(
            "a program of type {:?}, which is not loaded here yet",
            other.prog_type()
        ),
    }
    Ok(program.fd()?.try_clone()?)
}
