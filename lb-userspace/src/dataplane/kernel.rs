//! The real data plane.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard},
};

use aya::maps::{MapData, RingBuf};
use lb_common::abi::ConfigRow;

use super::{
    AttachError, Attached, Dataplane, Events, Fresh, Link, Loader, OpenError, Place, Readings,
    RedirectsError, ReloadError, RestoreError, TableError, Target, attach, clock,
    control::{self, CONTROL},
    detach,
    held::{Held, link_error},
    io_error,
    layout::Shape,
    locked,
    maps::{Maps, open_map},
    open::prepare,
    program::Program,
    readings::KernelReadings,
    syscall,
};
use crate::{model::DataPlane, plan::Change};

/// Pins, program and maps of an instance.
pub struct Kernel {
    held: Arc<Mutex<Held>>,
    shapes: Vec<Shape>,
    adopted: bool,
    /// Of the program in the links.
    settings: DataPlane,
    loaded: Loaded,
}

/// The pins of an instance, locked, before anything is loaded.
pub struct Prepared {
    held: Arc<Mutex<Held>>,
    shapes: Vec<Shape>,
    in_force: Option<ConfigRow>,
    settings: DataPlane,
}

/// Takes down what a start has made or found so far, also while it is still loading.
#[derive(Debug)]
pub struct Undo(Arc<Mutex<Held>>);

impl Undo {
    /// Takes down links, maps and directories.
    ///
    /// # Errors
    /// What could not be removed, and why; the rest was.
    pub fn remove(&self) -> Result<(), Vec<String>> {
        detach::remove(&mut locked(&self.0)).map(drop)
    }
}

/// What comes of loading the object.
struct Loaded {
    ticks_per_second: u32,
    flow_seed: u64,
    program: Arc<Mutex<Program>>,
    readings: Arc<KernelReadings>,
    maps: Arc<Mutex<Maps>>,
    events: Option<RingBuf<MapData>>,
}

impl Loaded {
    /// Loads the object with the pinned maps, or makes them.
    fn new(prepared: &Prepared) -> Result<Self, OpenError> {
        let Prepared {
            held,
            shapes,
            in_force,
            settings,
        } = prepared;
        let flow_seed = match in_force {
            Some(config) => config.flow_seed,
            None => secret().map_err(OpenError::Random)?,
        };
        let directory = locked(held).pins().directory().to_owned();
        if in_force.is_none() {
            control::create(&directory.join(CONTROL))
                .map_err(|cause| map_error((CONTROL, cause)))?;
        }
        let mut program = Program::read(&directory, shapes, *settings, flow_seed)?;
        program.load(*settings)?;
        let ticks_per_second =
            clock::measure(|| program.ticks().map_err(|error| io_error(&error)))?;
        let mut held_pins = locked(held);
        held_pins.hold_maps(shapes).map_err(map_error)?;
        let pins = held_pins.pins();
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
        drop(held_pins);
        let (program, maps) = (Arc::new(Mutex::new(program)), Arc::new(Mutex::new(maps)));
        let readings = KernelReadings::open(
            &directory,
            Arc::clone(&program),
            Arc::clone(&maps),
            Arc::clone(held),
        )
        .map_err(map_error)?;
        Ok(Self {
            ticks_per_second,
            flow_seed,
            program,
            readings: Arc::new(readings),
            maps,
            events: Some(events),
        })
    }
}

impl Prepared {
    /// Locks the pins of an instance and looks whether there is a data plane to adopt; takes milliseconds.
    ///
    /// # Errors
    /// See [`OpenError`]; what was in force before stays.
    pub fn new(place: &Place, settings: DataPlane) -> Result<Self, OpenError> {
        let (pins, shapes, in_force) = prepare(place, settings)?;
        Ok(Self {
            held: Arc::new(Mutex::new(Held::new(pins))),
            shapes,
            in_force,
            settings,
        })
    }

    /// Takes down whatever there is, should the start be stopped.
    #[must_use]
    pub fn undo(&self) -> Undo {
        Undo(Arc::clone(&self.held))
    }

    /// Adopts the data plane, or makes one; takes an eighth of a second, and the verifier's time.
    ///
    /// Nothing runs on any interface that did not run before. Must be called inside a tokio runtime, on a thread that
    /// may wait.
    ///
    /// # Errors
    /// See [`OpenError`]; what was in force before stays, and what was made is removed again.
    pub fn load(self) -> Result<Kernel, OpenError> {
        match Loaded::new(&self) {
            Ok(loaded) => Ok(Kernel {
                held: self.held,
                shapes: self.shapes,
                adopted: self.in_force.is_some(),
                settings: self.settings,
                loaded,
            }),
            Err(error) => {
                let held = locked(&self.held);
                let pins = held.pins();
                if self.in_force.is_none()
                    && let Err(left) = pins.unpin_maps().and_then(|()| pins.remove_directory())
                {
                    tracing::warn!("after a failed start something is left: {left}");
                }
                Err(error)
            }
        }
    }
}

impl Kernel {
    fn program(&self) -> MutexGuard<'_, Program> {
        locked(&self.loaded.program)
    }

    /// Puts a program into every link that is still on an interface.
    fn put_into_links(&self, program: &Program) -> Result<(), AttachError> {
        let mut held = locked(&self.held);
        for interface in held.links()? {
            let Some((link, info)) = held.link(&interface)? else {
                continue;
            };
            if info.ifindex == 0 {
                continue;
            }
            let fd = program.fd().map_err(|error| io_error(&error));
            fd.and_then(|fd| syscall::link_update(link.as_fd(), fd.as_fd()))
                .map_err(|cause| link_error(&interface, "put another program into", cause))?;
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
        locked(&self.loaded.maps).apply(change)
    }

    fn attach(&mut self, target: &Target) -> Result<Attached, AttachError> {
        let program = self.program();
        let fd = program.fd().map_err(|error| AttachError::Link {
            interface: target.name.clone(),
            action: "make",
            cause: io_error(&error),
        })?;
        attach::attach(&mut locked(&self.held), fd.as_fd(), target)
    }

    fn detach(&mut self, interface: &str) -> Result<bool, AttachError> {
        locked(&self.held).release_link(interface)
    }

    fn quiet_redirects(&mut self, interface: Option<&str>) -> Result<bool, RedirectsError> {
        locked(&self.held).redirects().quiet(interface)
    }

    fn links(&mut self) -> Result<Vec<Link>, AttachError> {
        let program = self.program_id();
        let mut links = Vec::new();
        let mut held = locked(&self.held);
        for interface in held.links()? {
            if let Some((_, info)) = held.link(&interface)? {
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

    fn loader(&self) -> Loader {
        let (held, maps) = (Arc::clone(&self.held), Arc::clone(&self.loaded.maps));
        let (shapes, flow_seed) = (self.shapes.clone(), self.loaded.flow_seed);
        Box::new(move |settings| {
            let directory = {
                let mut held = locked(&held);
                // The object would be given maps of its own where a pin is missing.
                held.restore_pins().map_err(AttachError::Pins)?;
                held.pins().directory().to_owned()
            };
            let mut program = {
                let _only_writer = locked(&maps);
                Program::read(&directory, &shapes, settings, flow_seed)?
            };
            program.load(settings)?;
            Ok(Fresh {
                settings,
                program: Some(program),
            })
        })
    }

    fn replace(&mut self, fresh: Fresh) -> Result<Fresh, ReloadError> {
        let Fresh { settings, program } = fresh;
        let Some(program) = program else {
            return Ok(Fresh { settings, program });
        };
        if let Err(error) = self.put_into_links(&program) {
            if let Err(second) = self.put_into_links(&self.program()) {
                tracing::error!(
                    event = "reload_failed",
                    "the earlier program can't be put back: {second}"
                );
            }
            return Err(error.into());
        }
        let program = std::mem::replace(&mut *self.program(), program);
        Ok(Fresh {
            settings: std::mem::replace(&mut self.settings, settings),
            program: Some(program),
        })
    }

    fn restore(&mut self) -> Result<(), RestoreError> {
        locked(&self.held).restore()
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
        detach::remove(&mut locked(&self.held)).map(drop)
    }
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
