//! What the agent keeps open of all that it has pinned. A pin that somebody removes takes nothing along: the program runs
//! on, by the link's descriptor, and the pin is made again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    AttachError,
    layout::Shape,
    pins::{Pins, PinsError},
    query,
    redirects::{Redirects, RedirectsError},
    syscall::{self, LinkInfo},
};

/// What somebody else has taken from a data plane in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Pins that are gone, by name. Traffic goes on, but the next agent would find nothing to adopt.
    pub pins: Vec<String>,
    /// Interfaces that are there and off which the program was taken.
    pub links: Vec<String>,
}

impl Losses {
    /// Nothing is lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.links.is_empty()
    }
}

/// Why what was taken is not back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A pin, or the directory of the pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// What the kernel's redirects were.
    #[error(transparent)]
    Redirects(#[from] RedirectsError),
}

/// The pins of an instance, with descriptors of what is pinned.
#[derive(Debug)]
pub(super) struct Held {
    pins: Pins,
    maps: Vec<(&'static str, OwnedFd)>,
    links: BTreeMap<String, HeldLink>,
    redirects: Redirects,
}

/// The program's link of an interface.
#[derive(Debug)]
struct HeldLink {
    fd: OwnedFd,
    /// Where it was when it was opened; the kernel says 0 once it is off.
    ifindex: u32,
}

impl Held {
    /// Nothing but the pins; links are opened where they are asked for.
    pub(super) fn new(pins: Pins) -> Self {
        Self {
            redirects: Redirects::of(&pins),
            pins,
            maps: Vec::new(),
            links: BTreeMap::new(),
        }
    }

    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The kernel's redirects, and what they were.
    pub(super) fn redirects(&mut self) -> &mut Redirects {
        &mut self.redirects
    }

    /// Opens the pinned maps; the error names the map.
    pub(super) fn hold_maps(&mut self, shapes: &[Shape]) -> Result<(), (&'static str, io::Error)> {
        let open = |shape: &Shape| {
            let map = syscall::get_pin(&self.pins.map(shape.name));
            map.map(|map| (shape.name, map))
                .map_err(|cause| (shape.name, cause))
        };
        self.maps = shapes.iter().map(open).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Names of the interfaces that have a link, on the interface or not.
    pub(super) fn links(&self) -> Result<Vec<String>, PinsError> {
        let mut names: BTreeSet<_> = self.pins.links()?.into_iter().collect();
        names.extend(self.links.keys().cloned());
        Ok(names.into_iter().collect())
    }

    /// The link of an interface; `None` where there is none.
    pub(super) fn link(
        &mut self,
        interface: &str,
    ) -> Result<Option<(&OwnedFd, LinkInfo)>, AttachError> {
        if !self.links.contains_key(interface)
            && let Some(fd) = self.pins.link(interface)?
        {
            let ifindex = info(interface, &fd)?.ifindex;
            self.links
                .insert(interface.to_owned(), HeldLink { fd, ifindex });
        }
        match self.links.get(interface) {
            Some(link) => Ok(Some((&link.fd, info(interface, &link.fd)?))),
            None => Ok(None),
        }
    }

    /// Pins a new link and keeps it. Without its pin it is given up, and the program goes off the interface.
    pub(super) fn keep_link(
        &mut self,
        interface: &str,
        ifindex: u32,
        fd: OwnedFd,
    ) -> Result<(), PinsError> {
        self.pins.pin_link(interface, &fd)?;
        self.links
            .insert(interface.to_owned(), HeldLink { fd, ifindex });
        Ok(())
    }

    /// Takes the program off an interface and removes the pin; `false` where it was not there.
    pub(super) fn release_link(&mut self, interface: &str) -> Result<bool, AttachError> {
        let Some((link, _)) = self.link(interface)? else {
            return Ok(false);
        };
        match syscall::link_detach(link.as_fd()) {
            // It is off already: ENOLINK of a link without an interface, EINVAL in older kernels.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::EINVAL)) => {}
            done => done.map_err(|cause| link_error(interface, "detach", cause))?,
        }
        self.pins.unpin_link(interface)?;
        self.links.remove(interface);
        Ok(true)
    }

    /// What is no longer as it was left. Some twenty quick system calls.
    pub(super) fn losses(&self) -> Losses {
        // A directory that can't be read holds no pin for anybody.
        let present: BTreeSet<_> = self.pins.names().unwrap_or_default().into_iter().collect();
        let mut losses = Losses::default();
        let maps = self.maps.iter().map(|(name, _)| (*name).to_owned());
        losses.pins.extend(maps);
        for (interface, link) in &self.links {
            let on = syscall::link_info(link.fd.as_fd()).is_ok_and(|info| info.ifindex != 0);
            if on {
                losses.pins.push(Pins::link_name(interface));
            } else if query::in_force(link.ifindex).is_ok() {
                losses.links.push(interface.clone());
            }
        }
        losses.pins.retain(|name| !present.contains(name));
        losses
            .pins
            .extend(self.redirects.loss().map(ToOwned::to_owned));
        losses
    }

    /// Lets go of everything: what is removed from now on is no loss.
    pub(super) fn forget(&mut self) {
        self.maps.clear();
        self.links.clear();
    }

    /// Makes the pins again that are gone, and what is kept beside them.
    pub(super) fn restore(&mut self) -> Result<(), RestoreError> {
        self.restore_pins()?;
        Ok(self.redirects.keep()?)
    }

    /// Makes the pins again that are gone.
    pub(super) fn restore_pins(&mut self) -> Result<(), PinsError> {
        let losses = self.losses();
        if losses.pins.is_empty() {
            return Ok(());
        }
        self.pins.renew()?;
        for (name, map) in &self.maps {
            if losses.pins.iter().any(|lost| lost == name) {
                self.pins.pin_map(name, map)?;
            }
        }
        for (interface, link) in &self.links {
            if losses.pins.contains(&Pins::link_name(interface)) {
                self.pins.pin_link(interface, &link.fd)?;
            }
        }
        Ok(())
    }
}

fn info(interface: &str, link: &OwnedFd) -> Result<LinkInfo, AttachError> {
    syscall::link_info(link.as_fd()).map_err(|cause| link_error(interface, "look at", cause))
}

pub(super) fn link_error(interface: &str, action: &'static str, cause: io::Error) -> AttachError {
    AttachError::Link {
        interface: interface.to_owned(),
        action,
        cause,
    }
}
