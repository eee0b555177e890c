//! From nothing, or from what an earlier agent left, to a loaded program with its maps.

use std::{
    io,
    path::{Path, PathBuf},
};

use lb_common::abi::{ConfigRow, LAYOUT_VERSION};

use super::{
    ClockError, LoadError, Misfit, PinsError,
    control::{CONTROL, ControlTables},
    counters::cpus,
    io_error,
    layout::{FLOWS, Shape, shapes},
    pins::Pins,
    privilege,
    shared::SharedArray,
};
use crate::model::DataPlane;

/// Where an instance's data plane lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the instance.
    pub instance: String,
    /// A bpffs.
    pub pin_root: PathBuf,
}

/// Why a data plane can't be made or adopted. What was in force before stays.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The process lacks capabilities.
    #[error(
        "the agent has no {}\n   mend: run it as root or by its systemd unit, or `setcap \
         cap_bpf,cap_net_admin,cap_perfmon=ep` the program",
        .0.join(" and no ")
    )]
    Privilege(Vec<&'static str>),
    /// The directory of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A pinned map is another version's, or not ours.
    #[error("the pinned map {map} does not fit this version: {misfit}\n   mend: {mend}")]
    Misfit {
        /// Its name.
        map: &'static str,
        /// How.
        misfit: Misfit,
        /// What to do.
        mend: String,
    },
    /// The flow table has another size than the configuration says.
    #[error(
        "the flow table in force has {found} entries and the configuration says flow_entries = {wanted}\n   mend: keep \
         {found}, or {mend}"
    )]
    FlowEntries {
        /// In force.
        found: u32,
        /// Configured.
        wanted: u32,
        /// What to do.
        mend: String,
    },
    /// The bytes of the maps are laid out by another version.
    #[error("the pinned maps have layout {found}, this version uses {needed}\n   mend: {mend}", needed = LAYOUT_VERSION)]
    Layout {
        /// In force.
        found: u32,
        /// What to do.
        mend: String,
    },
    /// Some maps are pinned and others not, while a link is.
    #[error("the program is attached, but the pin of {map} is missing\n   mend: {mend}")]
    Incomplete {
        /// One that is missing.
        map: &'static str,
        /// What to do.
        mend: String,
    },
    /// A pinned map can't be looked at.
    #[error("can't look at the pinned map {map}: {cause}\n   mend: {mend}")]
    Unreadable {
        /// Its name.
        map: &'static str,
        /// Why not.
        cause: io::Error,
        /// What to do.
        mend: String,
    },
    /// The object.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map can't be opened or mapped.
    #[error("can't use the map {map}: {cause}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// No random number for the flow table's secret.
    #[error("the kernel gives no random number for the flow table's hash: {0}")]
    Random(io::Error),
    /// The machine's CPUs, each of which has a row of counters.
    #[error("can't find out how many CPUs there are: {0}")]
    Cpus(io::Error),
    /// The kernel's clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// Locks an instance's pins and says whether there is a data plane to adopt. What an unfinished start left is removed.
pub(super) fn prepare(
    place: &Place,
    settings: DataPlane,
) -> Result<(Pins, Vec<Shape>, Option<ConfigRow>), OpenError> {
    let missing = privilege::missing();
    if !missing.is_empty() {
        return Err(OpenError::Privilege(missing));
    }
    let pins = Pins::create(&place.pin_root, &place.instance)?;
    let shapes = shapes(settings.flow_entries, cpus().map_err(OpenError::Cpus)?);
    let in_force = survey(&pins, &shapes, place)?;
    Ok((pins, shapes, in_force))
}

/// Looks at what is pinned; gives its configuration where it is a data plane that fits.
fn survey(pins: &Pins, shapes: &[Shape], place: &Place) -> Result<Option<ConfigRow>, OpenError> {
    let mend = || detach_command(place);
    let pinned = pins.pinned(shapes)?;
    for shape in &pinned {
        let found = shape.compare(pins.directory());
        let found = found.map_err(|error| unreadable(shape.name, io_error(&error), mend()))?;
        match found {
            Some(Misfit {
                what: "number of entries",
                found,
                needed,
            }) if shape.name == FLOWS => {
                return Err(OpenError::FlowEntries {
                    found,
                    wanted: needed,
                    mend: mend(),
                });
            }
            Some(misfit) => {
                return Err(OpenError::Misfit {
                    map: shape.name,
                    misfit,
                    mend: mend(),
                });
            }
            None => {}
        }
    }
    let config = if pinned.iter().any(|shape| shape.name == CONTROL) {
        config_in_force(pins).map_err(|error| unreadable(CONTROL, error, mend()))?
    } else {
        ConfigRow::default()
    };
    let attached = !pins.links()?.is_empty();
    let missing = shapes.iter().find(|shape| !pinned.contains(shape));
    match (config.layout_version, missing) {
        (0, _) if !attached => {
            // The version is written before the first packet can come: nothing has used these maps.
            pins.unpin_maps()?;
            Ok(None)
        }
        (LAYOUT_VERSION, None) => Ok(Some(config)),
        (0 | LAYOUT_VERSION, Some(shape)) => Err(OpenError::Incomplete {
            map: shape.name,
            mend: mend(),
        }),
        (found, _) => Err(OpenError::Layout {
            found,
            mend: mend(),
        }),
    }
}

fn config_in_force(pins: &Pins) -> io::Result<ConfigRow> {
    let map = SharedArray::pinned_read_only(&pins.map(CONTROL))?;
    Ok(ControlTables::of(&map)?.config())
}

fn detach_command(place: &Place) -> String {
    let root = match place.pin_root.as_path() {
        default if default == Path::new("/sys/fs/bpf") => String::new(),
        other => format!(" --pin-root {}", other.display()),
    };
    format!(
        "`lb detach --instance {}{root}`, which ends the flows in force, and start again",
        place.instance
    )
}

fn unreadable(map: &'static str, cause: io::Error, mend: String) -> OpenError {
    OpenError::Unreadable { map, cause, mend }
}
