//! The real data plane.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::ConfigRow;
use tokio::task::AbortHandle;

use super::{
    AttachError, Attached, Dataplane, Events, Link, OpenError, Place, Readings, RedirectsError,
    ReloadError, TableError, Target, attach, clock,
    control::{self, CONTROL},
    events::watch,
    io_error,
    layout::Shape,
    maps::{Maps, open_map},
    open::prepare,
    pins::Pins,
    program::Program,
    readings::KernelReadings,
    redirects::Redirects,
    syscall,
};
use crate::{
    model::{DataPlane, DataPlaneLog},
    plan::Change,
};

/// Pins, program and maps of an instance.
pub struct Kernel {
    pins: Pins,
    shapes: Vec<Shape>,
    adopted: bool,
    loaded: Loaded,
}

/// What comes of loading the object.
struct Loaded {
    ticks_per_second: u32,
    flow_seed: u64,
    program: Arc<Mutex<Program>>,
    readings: Arc<KernelReadings>,
    maps: Arc<Mutex<Maps>>,
    events: Option<RingBuf<MapData>>,
    log: Option<AbortHandle>,
}

impl Loaded {
    /// Loads the object with the pinned maps, or makes them. `in_force` is the configuration row of maps to adopt.
    fn new(
        pins: &Pins,
        shapes: &[Shape],
        in_force: Option<ConfigRow>,
        settings: DataPlane,
    ) -> Result<Self, OpenError> {
        let flow_seed = match in_force {
            Some(config) => config.flow_seed,
            None => secret().map_err(OpenError::Random)?,
        };
        if in_force.is_none() {
            control::create(&pins.map(CONTROL)).map_err(|cause| map_error((CONTROL, cause)))?;
        }
        let mut program = Program::load(pins.directory(), shapes, settings, flow_seed)?;
        let ticks_per_second =
            clock::measure(|| program.ticks().map_err(|error| io_error(&error)))?;
        let mut maps = Maps::open(pins).map_err(map_error)?;
        // An agent may have ended between a key's change and the word about it.
        maps.note_key_change()
            .map_err(|cause| map_error((CONTROL, cause)))?;
        if in_force.is_none() {
            // The next start needs it to find the flows of this one.
            let row = ConfigRow {
                flow_seed,
                ..ConfigRow::default()
            };
            maps.apply(&Change::Config(row))
                .map_err(|error| map_error((error.map, error.cause)))?;
        }
        let events = open_map(pins, "EVENTS")
            .and_then(|map| RingBuf::try_from(map).map_err(|error| io_error(&error)))
            .map_err(|cause| map_error(("EVENTS", cause)))?;
        let log = follow_log(&mut program, settings);
        let (program, maps) = (Arc::new(Mutex::new(program)), Arc::new(Mutex::new(maps)));
        let readings =
            KernelReadings::open(pins.directory(), Arc::clone(&program), Arc::clone(&maps))
                .map_err(map_error)?;
        Ok(Self {
            ticks_per_second,
            flow_seed,
            program,
            readings: Arc::new(readings),
            maps,
            events: Some(events),
            log,
        })
    }
}

impl Kernel {
    /// Adopts the data plane of an instance, or makes one; takes an eighth of a second, and the verifier's time.
    ///
    /// Nothing runs on any interface that did not run before. Must be called inside a tokio runtime, on a thread that
    /// may wait.
    ///
    /// # Errors
    /// See [`OpenError`]; what was in force before stays, and what was made is removed again.
    pub fn open(place: &Place, settings: DataPlane) -> Result<Self, OpenError> {
        let (pins, shapes, in_force) = prepare(place, settings)?;
        match Loaded::new(&pins, &shapes, in_force, settings) {
            Ok(loaded) => Ok(Self {
                pins,
                shapes,
                adopted: in_force.is_some(),
                loaded,
            }),
            Err(error) => {
                if in_force.is_none()
                    && let Err(left) = pins.unpin_maps().and_then(|()| pins.remove_directory())
                {
                    tracing::warn!("after a failed start something is left: {left}");
                }
                Err(error)
            }
        }
    }

    fn program(&self) -> MutexGuard<'_, Program> {
        self.loaded
            .program
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a program into every link that is still on an interface.
    fn put_into_links(&self, program: &Program) -> Result<(), AttachError> {
        for interface in self.pins.links()? {
            let Some((link, info)) = attach::pinned(&self.pins, &interface)? else {
                continue;
            };
            if info.ifindex == 0 {
                continue;
            }
            let fd = program.fd().map_err(|error| io_error(&error));
            fd.and_then(|fd| syscall::link_update(link.as_fd(), fd.as_fd()))
                .map_err(|cause| AttachError::Link {
                    interface,
                    action: "put another program into",
                    cause,
                })?;
        }
        Ok(())
    }

    /// The program's id, to tell whether a link has it.
    fn program_id(&self) -> Option<u32> {
        self.program().info().ok().map(|info| info.id())
    }
}

impl Dataplane for Kernel {
    fn adopted(&self) -> bool {
        self.adopted
    }

    fn ticks_per_second(&self) -> u32 {
        self.loaded.ticks_per_second
    }

    fn flow_seed(&self) -> u64 {
        self.loaded.flow_seed
    }

    fn apply(&mut self, change: &Change) -> Result<(), TableError> {
        self.loaded
            .maps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(change)
    }

    fn attach(&mut self, target: &Target) -> Result<Attached, AttachError> {
        let program = self.program();
        let fd = program.fd().map_err(|error| AttachError::Link {
            interface: target.name.clone(),
            action: "make",
            cause: io_error(&error),
        })?;
        attach::attach(&self.pins, fd.as_fd(), target)
    }

    fn detach(&mut self, interface: &str) -> Result<bool, AttachError> {
        attach::detach(&self.pins, interface)
    }

    fn quiet_redirects(&mut self, interface: Option<&str>) -> Result<bool, RedirectsError> {
        Redirects::of(&self.pins).quiet(interface)
    }

    fn links(&mut self) -> Result<Vec<Link>, AttachError> {
        let program = self.program_id();
        let mut links = Vec::new();
        for interface in self.pins.links()? {
            if let Some((_, info)) = attach::pinned(&self.pins, &interface)? {
                let current = info.is_xdp && Some(info.program) == program;
                links.push(Link {
                    interface,
                    ifindex: info.ifindex,
                    current,
                });
            }
        }
        Ok(links)
    }

    fn reload(&mut self, settings: DataPlane) -> Result<(), ReloadError> {
        let mut new = Program::load(
            self.pins.directory(),
            &self.shapes,
            settings,
            self.loaded.flow_seed,
        )?;
        if let Err(error) = self.put_into_links(&new) {
            if let Err(second) = self.put_into_links(&self.program()) {
                tracing::error!(
                    event = "reload_failed",
                    "the earlier program can't be put back: {second}"
                );
            }
            return Err(error.into());
        }
        let log = follow_log(&mut new, settings);
        if let Some(old) = std::mem::replace(&mut self.loaded.log, log) {
            old.abort();
        }
        *self.program() = new;
        Ok(())
    }

    fn readings(&self) -> Arc<dyn Readings> {
        Arc::clone(&self.loaded.readings) as Arc<dyn Readings>
    }

    fn events(&mut self) -> io::Result<Option<Events>> {
        self.loaded.events.take().map(Events::new).transpose()
    }

    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        self.program()
            .send(ifindex, frame)
            .map_err(|error| io_error(&error))
    }

    fn remove(&mut self) -> Result<(), Vec<String>> {
        if let Some(log) = self.loaded.log.take() {
            log.abort();
        }
        super::detach::remove(&self.pins).map(drop)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(log) = self.loaded.log.take() {
            log.abort();
        }
    }
}

/// Shows what the program logs, until it is aborted. A program that logs nothing needs no reader.
fn follow_log(program: &mut Program, settings: DataPlane) -> Option<AbortHandle> {
    if settings.log == DataPlaneLog::Off {
        return None;
    }
    let logger = match aya_log::EbpfLogger::init(program.ebpf_mut()) {
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
    Some(task.abort_handle())
}

fn map_error((map, cause): (&'static str, io::Error)) -> OpenError {
    OpenError::Map { map, cause }
}

/// A number that nobody else knows.
fn secret() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}
