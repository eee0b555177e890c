//! How much stack the call chains of a program take.
//!
//! The kernel refuses a program where the frames of a chain of calls come to more than 512 bytes ("combined stack size
//! of 4 calls is 544. Too large"). Kernels before 6.9 round each frame up to 32 bytes, newer ones to 16
//! (`check_max_stack_depth_subprog` in `kernel/bpf/verifier.c`). So this adds the frames up from the object's own code,
//! by the rounding of the older kernels: a chain that is too deep for one of them fails on every machine.
//!
//! 1. Each program is linked with the functions that it calls, as the loader does.
//! 2. A function begins where a call or the address of a callback leads. Its frame reaches down to the lowest address
//!    that it derives from the frame pointer.
//! 3. The deepest chain is found by following every call. Dead code counts, as it does for the kernel.

mod frame;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use self::frame::frame;
use crate::disasm::Btf;

/// What the kernel grants a chain of calls, in bytes (`MAX_BPF_STACK`).
pub const LIMIT: u32 = 512;
/// To what kernels before 6.9 round each frame up, in bytes.
const ROUNDING: u32 = 32;
/// How many frames a chain may have (`MAX_CALL_FRAMES`).
const CALLS: usize = 8;

/// The deepest chain of calls of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The program's name in the object.
    pub program: String,
    /// The functions of the chain, the program's own first, and the bytes that each really uses.
    pub frames: Vec<(String, u32)>,
}

impl Chain {
    /// Bytes of the whole chain, each frame rounded up.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.frames.iter().map(|(_, frame)| rounded(*frame)).sum()
    }

    /// Why kernels refuse it; `None` where all take it.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let (size, calls) = (self.size(), self.frames.len());
        if size > LIMIT {
            let over = size - LIMIT;
            return Some(format!(
                "{self}: {over} bytes more than the {LIMIT} that kernels before 6.9 grant"
            ));
        }
        (calls > CALLS).then(|| format!("{self}: {calls} calls, kernels grant {CALLS}"))
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<14} stack {:>4} of {LIMIT}",
            self.program,
            self.size()
        )?;
        for (number, (name, frame)) in self.frames.iter().enumerate() {
            let before = if number == 0 { ": " } else { " + " };
            write!(f, "{before}{name} {frame}")?;
        }
        Ok(())
    }
}

/// The deepest chain of each program of an object, by the programs' names.
///
/// # Errors
/// Where the object can't be read, or a function calls itself.
pub fn deepest(object: &[u8]) -> Result<Vec<Chain>> {
    let mut object = Object::parse(object).context("reading the object")?;
    let sections = object.functions.keys().map(|(section, _)| *section);
    let sections = sections.collect();
    object
        .relocate_calls(&sections)
        .context("linking the object's functions")?;
    let types = object.btf.as_ref().context("the object has no BTF")?;
    let types = Btf::new(&types.to_bytes())?;

    let mut chains = Vec::new();
    for (name, program) in &object.programs {
        let linked = object.functions.get(&program.function_key());
        let linked = linked.with_context(|| format!("`{name}` has no code"))?;
        let code = Code::new(&linked.instructions)?;
        let chain = code.deepest().with_context(|| format!("`{name}`"))?;
        let mut frames = Vec::new();
        for begin in chain {
            let mut infos = linked.func_info.func_info.iter();
            let info = infos.find(|info| info.insn_off as usize == begin);
            let info = info.with_context(|| format!("`{name}`: no function at {begin}"))?;
            frames.push((types.function(info.type_id)?, code.functions[&begin].frame));
        }
        chains.push(Chain {
            program: name.clone(),
            frames,
        });
    }
    chains.sort_by(|left, right| left.program.cmp(&right.program));
    Ok(chains)
}

/// The functions of a linked program, by their first instruction.
struct Code {
    functions: BTreeMap<usize, Function>,
}

struct Function {
    /// Bytes.
    frame: u32,
    /// First instructions of what it calls.
    calls: BTreeSet<usize>,
}

impl Code {
    fn new(instructions: &[bpf_insn]) -> Result<Self> {
        let called = calls(instructions).map(|(_, callee)| callee);
        let begins: BTreeSet<_> = called.chain([0]).collect();
        let ends = begins.iter().skip(1).copied();
        let ends = ends.chain([instructions.len()]);
        let mut functions = BTreeMap::new();
        for (&begin, end) in begins.iter().zip(ends) {
            let body = instructions.get(begin..end);
            let body = body.with_context(|| format!("a call leads to {begin}, out of the code"))?;
            let calls = calls(instructions)
                .filter(|(from, _)| (begin..end).contains(from))
                .map(|(_, callee)| callee)
                .collect();
            let frame = frame(body);
            functions.insert(begin, Function { frame, calls });
        }
        Ok(Self { functions })
    }

    /// First instructions of the functions of the deepest chain, that of the program's own first.
    fn deepest(&self) -> Result<Vec<usize>> {
        let mut known = BTreeMap::new();
        self.deepest_from(0, &mut known, &mut Vec::new())?;
        let mut chain = vec![0];
        while let Some((_, Some(next))) = chain.last().and_then(|last| known.get(last)) {
            chain.push(*next);
        }
        Ok(chain)
    }

    /// Bytes of the deepest chain that begins with a function, and the next function of it.
    fn deepest_from(
        &self,
        begin: usize,
        known: &mut BTreeMap<usize, (u32, Option<usize>)>,
        callers: &mut Vec<usize>,
    ) -> Result<u32> {
        if let Some((size, _)) = known.get(&begin) {
            return Ok(*size);
        }
        ensure!(
            !callers.contains(&begin),
            "the function at {begin} calls itself"
        );
        let Some(function) = self.functions.get(&begin) else {
            bail!("no function at {begin}");
        };
        callers.push(begin);
        let mut below = (0, None);
        for &callee in &function.calls {
            let size = self.deepest_from(callee, known, callers)?;
            if size > below.0 {
                below = (size, Some(callee));
            }
        }
        callers.pop();
        let size = rounded(function.frame) + below.0;
        known.insert(begin, (size, below.1));
        Ok(size)
    }
}

/// Each call of a function of the program, and each use of one as a callback: where, and the callee's first instruction.
fn calls(instructions: &[bpf_insn]) -> impl Iterator<Item = (usize, usize)> {
    /// `BPF_JMP | BPF_CALL` and `BPF_LD | BPF_IMM | BPF_DW`.
    const CALL: u8 = 0x85;
    const LOAD: u8 = 0x18;
    /// `BPF_PSEUDO_CALL` and `BPF_PSEUDO_FUNC`.
    const OF_A_FUNCTION: [(u8, u8); 2] = [(CALL, 1), (LOAD, 4)];
    let leads = |(from, one): (usize, &bpf_insn)| {
        let is_one = OF_A_FUNCTION.contains(&(one.code, one.src_reg()));
        let callee = (from + 1).checked_add_signed(one.imm as isize);
        callee.filter(|_| is_one).map(|callee| (from, callee))
    };
    instructions.iter().enumerate().filter_map(leads)
}

/// A frame as kernels before 6.9 count it; an empty one is not free.
fn rounded(frame: u32) -> u32 {
    frame.max(1).next_multiple_of(ROUNDING)
}

#[cfg(test)]
mod tests {
    use super::frame::tests::{exit, instruction, store};
    use super::*;

    fn call(from: i32, to: i32) -> bpf_insn {
        instruction(0x85, 0, 1, 0, to - from - 1)
    }

    fn chain(frames: &[u32]) -> Chain {
        let frames = frames.iter().map(|frame| (format!("f{frame}"), *frame));
        Chain {
            program: "lb".to_owned(),
            frames: frames.collect(),
        }
    }

    #[test]
    fn frames_are_rounded_as_kernels_before_6_9_do_and_512_is_the_most() {
        let refused = chain(&[72, 136, 136, 112]);
        assert_eq!(refused.size(), 544);
        let fault = refused.fault().unwrap();
        assert!(
            fault.contains("f72 72 + f136 136 + f136 136 + f112 112: 32 bytes more"),
            "{fault}"
        );
        assert_eq!(chain(&[72, 136, 128, 112]).fault(), None);
        assert_eq!(chain(&[512]).fault(), None);
        assert!(chain(&[512, 0]).fault().is_some());
        assert!(chain(&[8; 9]).fault().unwrap().contains("9 calls"));
        assert_eq!(chain(&[8; 8]).fault(), None);
    }

    /// The program calls b (8 bytes) and c (40); b calls d (200); c calls nobody.
    #[test]
    fn the_deepest_chain_is_found_where_its_last_frame_is_the_large_one() {
        let code = [
            store(10, -16),
            call(1, 6),
            call(2, 4),
            exit(),
            // 4: c
            store(10, -40),
            exit(),
            // 6: b
            store(10, -8),
            call(7, 9),
            exit(),
            // 9: d
            store(10, -200),
            exit(),
        ];
        let code = Code::new(&code).unwrap();
        assert_eq!(code.deepest().unwrap(), [0, 6, 9]);
        let frames: Vec<_> = code.functions.values().map(|one| one.frame).collect();
        assert_eq!(frames, [16, 40, 8, 200]);
    }

    #[test]
    fn a_callback_counts_as_a_call() {
        let code = [
            instruction(0x18, 2, 4, 0, 2),
            instruction(0, 0, 0, 0, 0),
            exit(),
            // 3
            store(10, -8),
            exit(),
        ];
        assert_eq!(Code::new(&code).unwrap().deepest().unwrap(), [0, 3]);
    }

    #[test]
    fn a_function_that_calls_itself_is_refused_and_not_followed_for_ever() {
        let code = [call(0, 2), exit(), call(2, 2), exit()];
        let error = Code::new(&code).unwrap().deepest().unwrap_err();
        assert!(error.to_string().contains("calls itself"), "{error}");
    }

    #[test]
    fn every_program_of_the_object_has_a_chain_that_begins_with_it() {
        let chains = deepest(lb_userspace::OBJECT).unwrap();
        let programs: Vec<_> = chains.iter().map(|chain| chain.program.as_str()).collect();
        assert_eq!(programs, ["announce", "lb", "maintenance"]);
        for chain in chains {
            assert_eq!(chain.frames[0].0, chain.program);
        }
    }
}
