//! Takes down what an instance left in the kernel, with or without an agent.

use std::path::Path;

use super::{
    PinsError,
    held::Held,
    pins::Pins,
    query::{self, InForceMode},
};
use crate::addresses;

/// Why an instance can't be taken down.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The directory of pins; where an agent runs, it is named.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The program runs on interfaces of another network namespace, where the managed addresses are too.
    #[error(
        "the program runs on {0} of another network namespace, where the VIPs are too; nothing was changed\n   help: run \
         this there: `ip netns exec NAME lb detach ..`, or `nsenter --net=/proc/PID/ns/net lb detach ..` with a process \
         of that namespace"
    )]
    Elsewhere(String),
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
    let mut held = Held::new(pins);
    let elsewhere = elsewhere(&mut held, &interfaces);
    if !elsewhere.is_empty() {
        return Err(DetachError::Elsewhere(elsewhere.join(", ")));
    }
    let (mut removed, mut left) = match remove(&mut held) {
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

/// Names of the interfaces that the program runs on and that are not of this network namespace.
fn elsewhere(held: &mut Held, interfaces: &[String]) -> Vec<String> {
    let mut is_elsewhere = |name: &String| {
        let Ok(Some((_, info))) = held.link(name) else {
            return false;
        };
        // A name says nothing: each namespace may have an eth0.
        let is_here = match query::in_force(info.ifindex) {
            Ok(Some(found)) => found.program == info.program || found.mode == InForceMode::Other,
            Ok(None) | Err(_) => false,
        };
        // Without an interface it is nowhere.
        info.ifindex != 0 && !is_here
    };
    interfaces
        .iter()
        .filter(|name| is_elsewhere(name))
        .cloned()
        .collect()
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
