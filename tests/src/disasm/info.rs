//! `BPF_OBJ_GET_INFO_BY_FD`, as far as machine code is concerned. The only unsafe code of [`super`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{io, ptr};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;

use super::btf::Btf;

/// What the kernel made of a program.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Id of the program in the kernel.
    pub id: u32,
    /// BPF instructions that were compiled, after the verifier had put its own in and taken dead ones out.
    pub instructions: u32,
    /// The program's function, then those that it calls.
    pub functions: Vec<Function>,
    /// Where the source says what, by the address of the machine code.
    pub lines: Vec<(u64, Line)>,
}

/// A function's machine code.
#[derive(Clone, Debug)]
pub struct Function {
    /// Name in the source.
    pub name: String,
    /// Where its machine code is.
    pub address: u64,
    /// Its machine code.
    pub code: Vec<u8>,
    /// BPF instructions it was made of.
    pub instructions: u32,
}

/// A line of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As the compiler was told.
    pub file: String,
    /// From 1 on.
    pub number: u32,
    /// Its text; empty where the compiler did not have it.
    pub text: String,
}

/// `struct bpf_prog_info` of `include/uapi/linux/bpf.h`, up to what is read here. Each pointer stands beside how many
/// elements, or bytes, its array has room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    flags: u32,
    netns_dev: u64,
    netns_ino: u64,
    ksyms_len: u32,
    lengths_len: u32,
    ksyms: u64,
    lengths: u64,
    btf_id: u32,
    function_size: u32,
    functions: u64,
    functions_len: u32,
    lines_len: u32,
    lines: u64,
    jited_lines: u64,
    jited_lines_len: u32,
    line_size: u32,
    jited_line_size: u32,
    tags_len: u32,
    tags: u64,
}

/// `struct bpf_func_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FunctionInfo {
    instruction: u32,
    type_id: u32,
}

/// `struct bpf_line_info`; `place` has the line in its upper 22 bits and the column in the others.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LineInfo {
    instruction: u32,
    file: u32,
    text: u32,
    place: u32,
}

/// `struct bpf_btf_info`.
#[repr(C)]
#[derive(Default)]
struct BtfInfo {
    btf: u64,
    size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    of_kernel: u32,
}

impl Compiled {
    pub(super) fn of(program: &ProgramFd) -> Result<Self> {
        let program = program.as_fd();
        let mut size = ProgramInfo::default();
        object_info(program, &mut size).context("asking for the program's size")?;
        ensure!(
            size.jited_len > 0,
            "the kernel did not compile it: net.core.bpf_jit_enable is off"
        );

        let mut code = vec![0_u8; size.jited_len as usize];
        let mut addresses = vec![0_u64; size.ksyms_len as usize];
        let mut lengths = vec![0_u32; size.lengths_len as usize];
        let mut functions = vec![FunctionInfo::default(); size.functions_len as usize];
        let mut lines = vec![LineInfo::default(); size.lines_len as usize];
        let mut line_addresses = vec![0_u64; size.jited_lines_len as usize];
        let mut info = ProgramInfo {
            jited_len: size.jited_len,
            jited: address(&mut code),
            ksyms_len: size.ksyms_len,
            ksyms: address(&mut addresses),
            lengths_len: size.lengths_len,
            lengths: address(&mut lengths),
            function_size: element::<FunctionInfo>(),
            functions_len: size.functions_len,
            functions: address(&mut functions),
            line_size: element::<LineInfo>(),
            lines_len: size.lines_len,
            lines: address(&mut lines),
            jited_line_size: element::<u64>(),
            jited_lines_len: size.jited_lines_len,
            jited_lines: address(&mut line_addresses),
            ..ProgramInfo::default()
        };
        object_info(program, &mut info).context("asking for the program's machine code")?;
        ensure!(
            info.jited != 0 && info.ksyms != 0,
            "the kernel keeps its addresses to itself: kernel.kptr_restrict is 2"
        );

        let btf = read_btf(info.btf_id).context("reading the program's types")?;
        let instructions = info.xlated_len / 8;
        let ends = functions.iter().skip(1).map(|next| next.instruction);
        let ends = ends.chain([instructions]);
        let mut code = code.as_slice();
        let mut compiled = Vec::new();
        for (((function, end), address), length) in
            functions.iter().zip(ends).zip(addresses).zip(lengths)
        {
            let (this, rest) = code
                .split_at_checked(length as usize)
                .context("the functions are longer than the program")?;
            code = rest;
            compiled.push(Function {
                name: btf.function(function.type_id)?,
                address,
                code: this.to_vec(),
                instructions: end - function.instruction,
            });
        }
        let lines = lines.iter().zip(line_addresses).map(|(line, address)| {
            let line = Line {
                file: btf.string(line.file)?.to_owned(),
                number: line.place >> 10,
                text: btf.string(line.text)?.trim().to_owned(),
            };
            Ok((address, line))
        });
        Ok(Self {
            id: info.id,
            instructions,
            functions: compiled,
            lines: lines.collect::<Result<_>>()?,
        })
    }
}

fn read_btf(id: u32) -> Result<Btf> {
    /// `BPF_BTF_GET_FD_BY_ID`.
    const GET_FD: i32 = 19;
    let mut attributes = [id, 0, 0];
    // SAFETY: the command reads three u32 and points nowhere.
    let fd = unsafe { bpf(GET_FD, &mut attributes) }?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut size = BtfInfo::default();
    object_info(fd.as_fd(), &mut size)?;
    let mut bytes = vec![0_u8; size.size as usize];
    let mut info = BtfInfo {
        btf: address(&mut bytes),
        size: size.size,
        ..BtfInfo::default()
    };
    object_info(fd.as_fd(), &mut info)?;
    Btf::new(&bytes)
}

/// What a descriptor's object says of itself. `info` is [`ProgramInfo`] or [`BtfInfo`], as the descriptor is.
fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    const GET_INFO: i32 = 15;
    #[repr(C)]
    struct Attributes {
        fd: u32,
        size: u32,
        info: u64,
    }
    let mut attributes = Attributes {
        fd: object.as_raw_fd().cast_unsigned(),
        size: element::<T>(),
        info: ptr::from_mut(info).addr() as u64,
    };
    // SAFETY: the kernel writes at most `size` bytes to `info`, and to the arrays that `info` names no more than the
    // lengths beside them, for which the callers made them; all of it lives until after the command.
    unsafe { bpf(GET_INFO, &mut attributes) }.map(drop)
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` must be laid out as the command reads it, and what it points to must live and be as large as the
/// command makes use of.
unsafe fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of `attributes`; for the rest the caller answers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn address<T>(array: &mut [T]) -> u64 {
    array.as_mut_ptr().addr() as u64
}

/// Size of an element, as the kernel takes it.
fn element<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}
