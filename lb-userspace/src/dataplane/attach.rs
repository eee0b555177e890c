//! The program's links: one for each interface, pinned, so that the program stays when the agent goes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    held::{Held, link_error},
    pins::PinsError,
    query::{self, InForceMode},
    syscall,
};
use crate::{model::AttachMode, nic};

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of `include/uapi/linux/if_link.h`.
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
/// Why an adopted program is in generic mode where any would do.
const LEFT_GENERIC: &str = "it was in generic mode already, and native mode is tried again when its MTU, its queues or \
                            its offloads change; help: write `mode = \"native\"` and reload, which tries it now, or \
                            `mode = \"generic\"` where that is meant";

/// Where the program is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Kernel name of the interface.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// How to attach.
    pub mode: AttachMode,
    /// With [`AttachMode::Auto`], a link in generic mode does not do: native mode is tried first.
    pub anew: bool,
}

/// How the program runs on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Index of the interface.
    pub ifindex: u32,
    /// By the driver; otherwise by the kernel's generic hook.
    pub native: bool,
    /// Why it is generic although native was tried.
    pub fallback: Option<String>,
    /// The link was there already.
    pub adopted: bool,
}

/// Why the program can't run on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another program runs there.
    #[error("{interface}: the XDP program {program} is already there\n   help: {help}")]
    Occupied {
        /// The interface.
        interface: String,
        /// Its id, and its name where that may be known.
        program: String,
        /// What to do.
        help: String,
    },
    /// There is no such interface.
    #[error("{interface}: there is no such interface\n   help: `ip link` shows the ones there are")]
    Missing {
        /// The interface.
        interface: String,
    },
    /// The driver or the kernel refuses.
    #[error("{interface}: the kernel refuses to attach in {mode} mode: {cause}{help}", help = help(.advice.as_ref()))]
    Refused {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// Why.
        cause: io::Error,
        /// What to do, where that is known.
        advice: Option<String>,
    },
    /// The configured mode is refused; the program runs on in the mode it was in.
    #[error("{refusal}\n   until then it runs on in {mode} mode")]
    Kept {
        /// `native` or `generic`, as before.
        mode: &'static str,
        /// Why the other mode is refused.
        refusal: Box<AttachError>,
    },
    /// The configured mode is refused, and so was the earlier one when the program was to be put back.
    #[error("{refusal}\n   and the program can't be put back: {second}")]
    NotPutBack {
        /// Why the configured mode is refused.
        refusal: Box<AttachError>,
        /// Why the earlier one is.
        second: Box<AttachError>,
    },
    /// A link can't be looked at or changed.
    #[error("{interface}: can't {action} the program's link: {cause}")]
    Link {
        /// The interface.
        interface: String,
        /// What was tried.
        action: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// A pin can't be made, opened or removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// The help of a refusal, on a line of its own.
fn help(advice: Option<&String>) -> String {
    advice.map_or_else(String::new, |advice| format!("\n   help: {advice}"))
}

/// Attaches the program, or puts it into the link that is there.
///
/// An interface takes a program in one mode at a time, so a link in another mode than the target's has to go before the
/// new one is made. Where the new one is refused, the earlier one is made again at once.
pub(super) fn attach(
    held: &mut Held,
    program: BorrowedFd<'_>,
    target: &Target,
) -> Result<Attached, AttachError> {
    let earlier = match adopt(held, program, target)? {
        Adoption::Done(adopted) => return Ok(adopted),
        Adoption::Nothing => return make(held, program, target),
        Adoption::Released(earlier) => earlier,
    };
    make(held, program, target).map_err(|refusal| {
        let refusal = Box::new(refusal);
        let back = Target {
            mode: earlier,
            ..target.clone()
        };
        match make(held, program, &back) {
            Ok(attached) => AttachError::Kept {
                mode: if attached.native { "native" } else { "generic" },
                refusal,
            },
            Err(second) => AttachError::NotPutBack {
                refusal,
                second: Box::new(second),
            },
        }
    })
}

/// Makes a link and its pin.
fn make(
    held: &mut Held,
    program: BorrowedFd<'_>,
    target: &Target,
) -> Result<Attached, AttachError> {
    let (link, native, fallback) = match target.mode {
        AttachMode::Generic => (create(program, target, GENERIC)?, false, None),
        AttachMode::Native => (create(program, target, NATIVE)?, true, None),
        AttachMode::Auto => match create(program, target, NATIVE) {
            Ok(link) => (link, true, None),
            Err(refusal @ AttachError::Refused { .. }) => (
                create(program, target, GENERIC)?,
                false,
                Some(refusal.to_string()),
            ),
            Err(error) => return Err(error),
        },
    };
    held.keep_link(&target.name, target.ifindex, link)?;
    Ok(Attached {
        ifindex: target.ifindex,
        native,
        fallback,
        adopted: false,
    })
}

/// What became of the link that was there.
enum Adoption {
    /// The program is in it.
    Done(Attached),
    /// There was none, or one of an interface that is gone.
    Nothing,
    /// It was on the interface in this mode, which is not the target's, and was taken off.
    Released(AttachMode),
}

/// Puts the program into the link where that is on the right interface in the right mode; removes the link otherwise.
fn adopt(
    held: &mut Held,
    program: BorrowedFd<'_>,
    target: &Target,
) -> Result<Adoption, AttachError> {
    let Some((link, info)) = held.link(&target.name)? else {
        return Ok(Adoption::Nothing);
    };
    let in_force = query::in_force(target.ifindex)
        .map_err(|cause| link_error(&target.name, "look at", cause))?;
    let native = in_force.is_some_and(|found| found.mode == InForceMode::Native);
    let fits = match target.mode {
        AttachMode::Auto => native || !target.anew,
        AttachMode::Native => native,
        AttachMode::Generic => !native,
    };
    if !info.is_xdp || info.ifindex != target.ifindex || in_force.is_none() {
        held.release_link(&target.name)?;
        return Ok(Adoption::Nothing);
    }
    if !fits {
        held.release_link(&target.name)?;
        return Ok(Adoption::Released(if native {
            AttachMode::Native
        } else {
            AttachMode::Generic
        }));
    }
    syscall::link_update(link.as_fd(), program)
        .map_err(|cause| link_error(&target.name, "put another program into", cause))?;
    Ok(Adoption::Done(Attached {
        ifindex: target.ifindex,
        native,
        fallback: (!native && target.mode == AttachMode::Auto).then(|| LEFT_GENERIC.to_owned()),
        adopted: true,
    }))
}

fn create(program: BorrowedFd<'_>, target: &Target, flags: u32) -> Result<OwnedFd, AttachError> {
    let interface = target.name.clone();
    syscall::link_create(program, target.ifindex, flags).map_err(|cause| {
        match cause.raw_os_error() {
            // EEXIST: a generic program keeps a native one away, and the reverse.
            Some(libc::EBUSY | libc::EEXIST) => occupied(target, cause),
            Some(libc::ENODEV) => AttachError::Missing { interface },
            _ => {
                let native = flags == NATIVE;
                let advice = nic::read(&interface, target.ifindex).ok().and_then(|nic| {
                    let auto = target.mode == AttachMode::Auto;
                    nic::refusal(&nic, cause.raw_os_error()?, native, auto)
                });
                AttachError::Refused {
                    interface,
                    mode: if native { "native" } else { "generic" },
                    cause,
                    advice,
                }
            }
        }
    })
}

/// Names the program that is in the way, as far as the process may know.
fn occupied(target: &Target, cause: io::Error) -> AttachError {
    let interface = target.name.clone();
    let Ok(Some(found)) = query::in_force(target.ifindex) else {
        return AttachError::Refused {
            interface,
            mode: "native",
            cause,
            advice: None,
        };
    };
    let programs = || aya::programs::loaded_programs().filter_map(Result::ok);
    let name = programs().find(|program| program.id() == found.program);
    let name = name.and_then(|program| program.name_as_str().map(str::to_owned));
    let stop = match name.as_deref() {
        Some("lb") => "stop the other balancer there",
        _ => "stop what attached it",
    };
    let links = || aya::programs::loaded_links().filter_map(Result::ok);
    let link = links()
        .find(|link| link.program_id() == found.program)
        .map(|link| link.id());
    let help = if let Some(link) = link {
        format!("{stop}, or `bpftool link detach id {link}`")
    } else {
        let generic = found.mode == InForceMode::Generic;
        let hook = if generic { "xdpgeneric" } else { "xdpdrv" };
        format!("{stop}, or `ip link set dev {interface} {hook} off`; `bpftool net` shows more")
    };
    AttachError::Occupied {
        interface,
        program: format!(
            "{}{}",
            found.program,
            name.map(|name| format!(" ({name})")).unwrap_or_default()
        ),
        help,
    }
}
