//! From nothing, or from what an earlier agent left, to a loaded program with its maps.

use std::{
    io,
    path::{Path, PathBuf},
};

use lb_common::abi::{ConfigRow, LAYOUT_VERSION, WAYS};

use super::{
    ClockError, LoadError, Misfit, PinsError,
    control::{self, CONTROL},
    counters::cpus,
    io_error,
    layout::{FLOWS, NUMBER_OF_ENTRIES, Shape, shapes},
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
        "the agent has no {}\n   help: run it as root or by its systemd unit, or `setcap \
         cap_bpf,cap_net_admin,cap_perfmon=ep` the program",
        .0.join(" and no ")
    )]
    Privilege(Vec<&'static str>),
    /// The directory of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A pinned map is another version's, or not ours.
    #[error("the pinned map {map} does not fit this version: {misfit}\n   help: {help}")]
    Misfit {
        /// Its name.
        map: &'static str,
        /// How.
        misfit: Misfit,
        /// What to do.
        help: String,
    },
    /// The flow table has another size than the configuration says.
    #[error(
        "the flow table in force has {found} entries and the configuration says flow_entries = {wanted}\n   help: set \
         flow_entries = {found}, or {help}"
    )]
    FlowEntries {
        /// In force.
        found: u32,
        /// Configured.
        wanted: u32,
        /// What to do.
        help: String,
    },
    /// The bytes of the maps are laid out by another version.
    #[error("the pinned maps have layout {found}, this version uses {needed}\n   help: {help}", needed = LAYOUT_VERSION)]
    Layout {
        /// In force.
        found: u32,
        /// What to do.
        help: String,
    },
    /// Some maps are pinned and others not, while a link is.
    #[error("the program is attached, but the pin of {map} is missing\n   help: {help}")]
    Incomplete {
        /// One that is missing.
        map: &'static str,
        /// What to do.
        help: String,
    },
    /// A pinned map can't be looked at.
    #[error("can't look at the pinned map {map}: {cause}\n   help: {help}")]
    Unreadable {
        /// Its name.
        map: &'static str,
        /// Why not.
        cause: io::Error,
        /// What to do.
        help: String,
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
    let in_force = survey(&pins, &shapes, settings.flow_entries, place)?;
    Ok((pins, shapes, in_force))
}

/// Looks at what is pinned; gives its configuration where it is a data plane that fits.
fn survey(
    pins: &Pins,
    shapes: &[Shape],
    flow_entries: u32,
    place: &Place,
) -> Result<Option<ConfigRow>, OpenError> {
    let help = || detach_command(place);
    let pinned = pins.pinned(shapes)?;
    let mut misfit = None;
    for shape in &pinned {
        let found = shape.compare(pins.directory());
        let found = found.map_err(|error| unreadable(shape.name, io_error(&error), help()))?;
        misfit = misfit.or(found.map(|misfit| (*shape, misfit)));
    }
    let has_control = pinned.iter().any(|shape| shape.name == CONTROL);
    let config = match has_control.then(|| config_in_force(pins)) {
        Some(Ok(config)) => config,
        Some(Err(error)) if misfit.is_none() => return Err(unreadable(CONTROL, error, help())),
        Some(Err(_)) | None => ConfigRow::default(),
    };
    let attached = !pins.links()?.is_empty();
    let missing = shapes.iter().find(|shape| !pinned.contains(shape));
    match judge(config.layout_version, misfit, attached, missing) {
        Found::Fitting => Ok(Some(config)),
        Found::Unfinished => {
            pins.unpin_maps()?;
            Ok(None)
        }
        Found::OtherLayout => Err(OpenError::Layout {
            found: config.layout_version,
            help: help(),
        }),
        Found::OtherFlowEntries { found } => Err(OpenError::FlowEntries {
            found: found.saturating_mul(WAYS),
            wanted: flow_entries,
            help: help(),
        }),
        Found::Misfit { map, misfit } => Err(OpenError::Misfit {
            map,
            misfit,
            help: help(),
        }),
        Found::Incomplete { map } => Err(OpenError::Incomplete { map, help: help() }),
    }
}

/// What is pinned.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A data plane to adopt.
    Fitting,
    /// What a start left that did not come to its end: the version is written before the first packet can come, so nothing has
    /// used these maps.
    Unfinished,
    /// Another version's.
    OtherLayout,
    /// A flow table of so many buckets and not those of the configuration.
    OtherFlowEntries { found: u32 },
    /// Something else under the name of a map.
    Misfit { map: &'static str, misfit: Misfit },
    /// A data plane without one of its maps.
    Incomplete { map: &'static str },
}

/// Judges what is pinned. The version comes first: of another one, no other shape and no missing map is a surprise.
fn judge(
    layout_version: u32,
    misfit: Option<(&Shape, Misfit)>,
    attached: bool,
    missing: Option<&Shape>,
) -> Found {
    if ![0, LAYOUT_VERSION].contains(&layout_version) {
        return Found::OtherLayout;
    }
    if let Some((shape, misfit)) = misfit {
        let Misfit { what, found, .. } = misfit;
        return if shape.name == FLOWS && what == NUMBER_OF_ENTRIES {
            Found::OtherFlowEntries { found }
        } else {
            Found::Misfit {
                map: shape.name,
                misfit,
            }
        };
    }
    match (layout_version, missing) {
        (0, _) if !attached => Found::Unfinished,
        (_, Some(shape)) => Found::Incomplete { map: shape.name },
        (0, None) => Found::OtherLayout,
        (_, None) => Found::Fitting,
    }
}

fn config_in_force(pins: &Pins) -> io::Result<ConfigRow> {
    control::config_of(&SharedArray::pinned_read_only(&pins.map(CONTROL))?)
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

fn unreadable(map: &'static str, cause: io::Error, help: String) -> OpenError {
    OpenError::Unreadable { map, cause, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_judged_before_the_shapes_of_maps_and_before_those_that_are_missing() {
        let shapes = shapes(4_096, 2);
        let of = |name| shapes.iter().find(|shape| shape.name == name).unwrap();
        let misfit = |what| Misfit {
            what,
            found: 1,
            needed: 2,
        };
        let size = Some((of(CONTROL), misfit("value size")));
        let entries = Some((of(FLOWS), misfit(NUMBER_OF_ENTRIES)));
        let missing = Some(of(FLOWS));
        let (older, newer) = (LAYOUT_VERSION - 1, LAYOUT_VERSION + 1);
        let cases = [
            (older, size, true, None, Found::OtherLayout),
            (older, None, true, missing, Found::OtherLayout),
            (older, entries, false, None, Found::OtherLayout),
            (newer, None, false, None, Found::OtherLayout),
            (0, None, true, None, Found::OtherLayout),
            (0, None, false, None, Found::Unfinished),
            (0, None, false, missing, Found::Unfinished),
            (LAYOUT_VERSION, None, true, None, Found::Fitting),
            (LAYOUT_VERSION, None, false, None, Found::Fitting),
            (
                LAYOUT_VERSION,
                None,
                false,
                missing,
                Found::Incomplete { map: FLOWS },
            ),
            (0, None, true, missing, Found::Incomplete { map: FLOWS }),
            (
                LAYOUT_VERSION,
                entries,
                true,
                None,
                Found::OtherFlowEntries { found: 1 },
            ),
            (
                0,
                size,
                false,
                None,
                Found::Misfit {
                    map: CONTROL,
                    misfit: misfit("value size"),
                },
            ),
        ];
        for (version, misfit, attached, missing, judgement) in cases {
            assert_eq!(
                judge(version, misfit, attached, missing),
                judgement,
                "{version} {misfit:?} {attached} {missing:?}"
            );
        }
    }
}
