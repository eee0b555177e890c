//! Takes down what an instance left in the kernel, with or without an agent.

use std::path::Path;

use super::{PinsError, held::Held, pins::Pins};
use crate::addresses;

/// Why an instance can't be taken down.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The directory of pins; where an agent runs, it is named.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Some things could not be removed; the rest was.
    #[error("not everything could be removed: {}", .0.join("; "))]
    Left(Vec<String>),
}

/// Takes down what an instance left in the kernel, without an agent: links, maps, directories and managed addresses.
///
/// Gives one line for each thing removed; none where there was nothing. Addresses are removed in the network namespace
/// of the caller.
///
/// # Errors
/// An agent of the instance is running, or something could not be removed.
pub async fn detach(instance: &str, pin_root: &Path) -> Result<Vec<String>, DetachError> {
    let Some(pins) = Pins::open(pin_root, instance)? else {
        return Ok(Vec::new());
    };
    let interfaces = pins.links()?;
    let (mut removed, mut left) = match remove(&mut Held::new(pins)) {
        Ok(lines) => (lines, Vec::new()),
        Err(problems) => (Vec::new(), problems),
    };
    match addresses::remove(&interfaces).await {
        Ok(addresses) => removed.extend(
            addresses
                .iter()
                .map(|address| format!("address {address} removed")),
        ),
        Err(error) => left.push(error.to_string()),
    }
    if left.is_empty() {
        Ok(removed)
    } else {
        Err(DetachError::Left(left))
    }
}

/// Removes links first, so that no packet meets half a data plane; goes on after a failure.
pub(super) fn remove(held: &mut Held) -> Result<Vec<String>, Vec<String>> {
    let mut removed = Vec::new();
    let mut left = Vec::new();
    match held.links() {
        Ok(interfaces) => {
            for interface in interfaces {
                match held.release_link(&interface) {
                    Ok(_) => removed.push(format!("program detached from {interface}")),
                    Err(error) => left.push(error.to_string()),
                }
            }
        }
        Err(error) => left.push(error.to_string()),
    }
    match held.redirects().restore() {
        Ok(true) => removed.push("ICMP redirects switched on again".to_owned()),
        Ok(false) => {}
        Err(error) => left.push(error.to_string()),
    }
    // Maps of a program that still runs stay where the next attempt finds them.
    let pins = held.pins();
    if left.is_empty() {
        match pins.unpin_maps().and_then(|()| pins.remove_directory()) {
            Ok(()) => removed.push(format!(
                "maps and pins removed from {}",
                pins.directory().display()
            )),
            Err(error) => left.push(error.to_string()),
        }
    }
    if left.is_empty() {
        held.forget();
        Ok(removed)
    } else {
        Err(left)
    }
}
