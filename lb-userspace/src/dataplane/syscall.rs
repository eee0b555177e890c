//! The commands of bpf(2) that aya does not offer: links without its fallback to netlink, and what a link is attached to.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Numbers of `include/uapi/linux/bpf.h`.
mod number {
    pub(super) const MAP_CREATE: i32 = 0;
    pub(super) const MAP_DELETE_ELEM: i32 = 3;
    pub(super) const OBJ_PIN: i32 = 6;
    pub(super) const OBJ_GET: i32 = 7;
    pub(super) const OBJ_GET_INFO_BY_FD: i32 = 15;
    pub(super) const LINK_CREATE: i32 = 28;
    pub(super) const LINK_UPDATE: i32 = 29;
    pub(super) const LINK_DETACH: i32 = 34;
    /// `BPF_XDP` of `enum bpf_attach_type`.
    pub(super) const ATTACH_XDP: u32 = 37;
    /// `BPF_LINK_TYPE_XDP` of `enum bpf_link_type`.
    pub(super) const LINK_XDP: u32 = 6;
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// It is a link of an XDP program.
    pub(super) is_xdp: bool,
    /// Its id.
    pub(super) id: u32,
    /// Id of the program in it.
    pub(super) program: u32,
    /// Index of the interface it is attached to; 0 once that is gone.
    pub(super) ifindex: u32,
}

/// `BPF_MAP_CREATE` of an array with one value of so many bytes, which can be mapped into memory (`BPF_F_MMAPABLE`).
pub(super) fn create_shared_array(name: &str, value_size: usize) -> io::Result<OwnedFd> {
    /// Head of the command's attributes.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner_map: u32,
        numa_node: u32,
        /// Ends in zero.
        name: [u8; 16],
    }
    /// `BPF_MAP_TYPE_ARRAY` of `enum bpf_map_type`.
    const ARRAY: u32 = 2;
    const MMAPABLE: u32 = 1 << 10;
    let mut attributes = Attributes {
        kind: ARRAY,
        key_size: 4,
        value_size: length_of(value_size),
        max_entries: 1,
        flags: MMAPABLE,
        inner_map: 0,
        numa_node: 0,
        name: [0; 16],
    };
    for (byte, letter) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
        *byte = letter;
    }
    // SAFETY: the command reads its attributes alone.
    let fd = unsafe { bpf(number::MAP_CREATE, &mut attributes) }?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_LINK_CREATE` for XDP. `flags` are those of `include/uapi/linux/if_link.h`.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = [raw(program), ifindex, number::ATTACH_XDP, flags];
    // SAFETY: the command reads four u32 and points nowhere.
    let fd = unsafe { bpf(number::LINK_CREATE, &mut attributes) }?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_LINK_UPDATE`: puts another program into a link, between two packets.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [raw(link), raw(program), 0, 0];
    // SAFETY: the command reads four u32 and points nowhere.
    unsafe { bpf(number::LINK_UPDATE, &mut attributes) }.map(drop)
}

/// `BPF_LINK_DETACH`: takes the program off the interface at once, whoever else holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [raw(link)];
    // SAFETY: the command reads one u32.
    unsafe { bpf(number::LINK_DETACH, &mut attributes) }.map(drop)
}

/// `BPF_OBJ_GET_INFO_BY_FD` of a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    /// Head of `struct bpf_link_info` and the union's member for XDP.
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        ifindex: u32,
        rest: [u32; 27],
    }
    #[repr(C)]
    struct Attributes {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info {
        kind: 0,
        id: 0,
        program: 0,
        padding: 0,
        ifindex: 0,
        rest: [0; 27],
    };
    let mut attributes = Attributes {
        fd: raw(link),
        length: length_of(size_of::<Info>()),
        info: address(&raw mut info),
    };
    // SAFETY: the command writes at most `length` bytes to `info`, which lives until after it.
    unsafe { bpf(number::OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let is_xdp = info.kind == number::LINK_XDP;
    Ok(LinkInfo {
        is_xdp,
        id: info.id,
        program: info.program,
        ifindex: info.ifindex,
    })
}

/// `BPF_OBJ_PIN`.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        path: address(path.as_ptr()),
        fd: raw(object),
        flags: 0,
    };
    // SAFETY: `path` is a string that ends in zero and lives until after the command.
    unsafe { bpf(number::OBJ_PIN, &mut attributes) }.map(drop)
}

/// `BPF_OBJ_GET`.
pub(super) fn get_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        path: address(path.as_ptr()),
        fd: 0,
        flags: 0,
    };
    // SAFETY: `path` is a string that ends in zero and lives until after the command.
    let fd = unsafe { bpf(number::OBJ_GET, &mut attributes) }?;
    // SAFETY: the command returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `BPF_MAP_DELETE_ELEM` of a map whose keys are `u32`; an entry that is not there is no error.
pub(super) fn delete(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    /// The longest key that a map can have here; the kernel reads as much as the map's keys are long.
    const LONGEST: usize = 512;
    let mut bytes = [0_u8; LONGEST];
    bytes[..4].copy_from_slice(&key.to_ne_bytes());
    let mut attributes = Attributes {
        fd: raw(map),
        padding: 0,
        key: address(bytes.as_ptr()),
        value: 0,
        flags: 0,
    };
    // SAFETY: `bytes` is longer than a key of BPF maps may be (MAX_BPF_STACK), and lives until after the command.
    match unsafe { bpf(number::MAP_DELETE_ELEM, &mut attributes) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done.map(drop),
    }
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

/// A descriptor as bpf(2) takes it.
fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A pointer as bpf(2) takes it.
fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

/// A length as bpf(2) takes it.
fn length_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
