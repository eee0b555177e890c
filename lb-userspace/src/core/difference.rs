//! What a reload changes, in lines for people. Pure.

use std::{collections::BTreeMap, fmt::Display};

use crate::model::{AttachMode, Backend, Model, Pool, Service};

/// The lines, in the order of the new configuration; removed things last of their kind.
pub(super) fn difference(old: &Model, new: &Model) -> Vec<String> {
    let mut lines = Vec::new();
    if old.manage_addresses != new.manage_addresses {
        let what = if new.manage_addresses {
            "are"
        } else {
            "are no longer"
        };
        lines.push(format!("the services' addresses {what} managed"));
    }
    if old.ready_when != new.ready_when {
        let before = old.ready_when.name();
        lines.push(format!("ready_when {before} -> {}", new.ready_when.name()));
    }
    if old.data_plane.log != new.data_plane.log {
        lines.push(
            format!("data plane: log {:?}, program replaced", new.data_plane.log).to_lowercase(),
        );
    }
    compare(
        &old.interfaces,
        &new.interfaces,
        |interface| &interface.name,
        |change| match change {
            Pair::Added(interface) => lines.push(format!("interface {} added", interface.name)),
            Pair::Removed(interface) => lines.push(format!("interface {} removed", interface.name)),
            Pair::Kept(old, new) if old.mode != new.mode => {
                lines.push(format!(
                    "interface {}: mode {}",
                    new.name,
                    mode_name(new.mode)
                ));
            }
            Pair::Kept(..) => {}
        },
    );
    compare(
        &old.pools,
        &new.pools,
        |pool| &pool.name,
        |change| match change {
            Pair::Added(pool) => lines.push(format!(
                "pool {} added, {} backends",
                pool.name,
                pool.backends.len()
            )),
            Pair::Removed(pool) => lines.push(format!("pool {} removed", pool.name)),
            Pair::Kept(old, new) => pool_difference(old, new, &mut lines),
        },
    );
    compare(
        &old.services,
        &new.services,
        |service| &service.name,
        |change| match change {
            Pair::Added(service) => lines.push(format!(
                "service {} added at {}",
                service.name,
                place(service)
            )),
            Pair::Removed(service) => {
                lines.push(format!("service {} removed; its flows go on", service.name));
            }
            Pair::Kept(old, new) => service_difference(old, new, &mut lines),
        },
    );
    lines
}

fn pool_difference(old: &Pool, new: &Pool, lines: &mut Vec<String>) {
    match (&old.check, &new.check) {
        (None, Some(_)) => lines.push(format!("pool {}: check added", new.name)),
        (Some(_), None) => lines.push(format!("pool {}: check removed", new.name)),
        (before, after) if before != after => {
            lines.push(format!("pool {}: check changed", new.name));
        }
        _ => {}
    }
    let name = &new.name;
    compare(
        &old.backends,
        &new.backends,
        |backend| &backend.address,
        |change| match change {
            Pair::Added(backend) => {
                lines.push(format!("pool {name}: backend {} added", called(backend)));
            }
            Pair::Removed(backend) => {
                lines.push(format!(
                    "pool {name}: backend {} removed; its flows go on",
                    called(backend)
                ));
            }
            Pair::Kept(old, new) => {
                if old.weight != new.weight {
                    let (before, after) = (old.weight, new.weight);
                    lines.push(format!(
                        "pool {name}: backend {} weight {before} -> {after}",
                        called(new)
                    ));
                }
                if old.name != new.name {
                    lines.push(format!(
                        "pool {name}: backend {} is called {}",
                        new.address, new.name
                    ));
                }
            }
        },
    );
    let order = |pool: &Pool| {
        pool.backends
            .iter()
            .map(|backend| backend.address)
            .collect::<Vec<_>>()
    };
    let (mut before, mut after) = (order(old), order(new));
    if before != after {
        before.sort_unstable();
        after.sort_unstable();
        if before == after {
            lines.push(format!("pool {name}: backends in another order"));
        }
    }
}

fn service_difference(old: &Service, new: &Service, lines: &mut Vec<String>) {
    let name = &new.name;
    if (old.address, old.protocol) != (new.address, new.protocol) {
        lines.push(format!(
            "service {name}: {} -> {}; flows of the old address go on",
            place(old),
            place(new)
        ));
    }
    if old.pool != new.pool {
        lines.push(format!("service {name}: pool {} -> {}", old.pool, new.pool));
    }
    if (old.mode, old.scheduler) != (new.mode, new.scheduler) {
        lines.push(format!(
            "service {name}: {:?}, {:?}",
            new.mode, new.scheduler
        ));
    }
}

fn place(service: &Service) -> impl Display {
    crate::plan::ServiceAddress {
        address: service.address,
        protocol: service.protocol,
    }
}

fn called(backend: &Backend) -> String {
    let address = backend.address.to_string();
    if backend.name == address {
        address
    } else {
        format!("{} ({address})", backend.name)
    }
}

fn mode_name(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Auto => "auto",
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    }
}

/// One thing in two configurations.
enum Pair<'a, T> {
    Added(&'a T),
    Removed(&'a T),
    Kept(&'a T, &'a T),
}

fn compare<'a, T, K: Ord + 'a>(
    old: &'a [T],
    new: &'a [T],
    key: impl Fn(&'a T) -> &'a K,
    mut tell: impl FnMut(Pair<'a, T>),
) {
    let mut before: BTreeMap<_, _> = old.iter().map(|item| (key(item), item)).collect();
    for item in new {
        match before.remove(key(item)) {
            Some(old) => tell(Pair::Kept(old, item)),
            None => tell(Pair::Added(item)),
        }
    }
    // In the order of the file.
    old.iter()
        .filter(|item| before.contains_key(key(item)))
        .for_each(|item| tell(Pair::Removed(item)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::testing::{address, backend, model},
        model::{DataPlaneLog, Interface, ReadyWhen},
    };

    #[test]
    fn equal_configurations_differ_in_nothing() {
        assert_eq!(difference(&model(3), &model(3)), [""; 0]);
    }

    #[test]
    fn every_change_has_its_line() {
        let old = model(2);
        let mut new = model(2);
        new.pools[0].backends.remove(0);
        new.pools[0].backends[0].weight = 0;
        new.pools[0].backends.push(backend(3));
        new.pools[0].check = None;
        new.interfaces.push(Interface {
            name: "eth1".to_owned(),
            mode: AttachMode::Auto,
        });
        new.services[0].address = address(200);
        new.data_plane.log = DataPlaneLog::Info;
        new.manage_addresses = true;
        new.ready_when = ReadyWhen::AllServices;
        let lines = difference(&old, &new);
        let expected = [
            "the services' addresses are managed",
            "ready_when any-service -> all-services",
            "data plane: log info, program replaced",
            "interface eth1 added",
            "pool web: check removed",
            "pool web: backend web2 (10.0.0.2:80) weight 1 -> 0",
            "pool web: backend web3 (10.0.0.3:80) added",
            "pool web: backend web1 (10.0.0.1:80) removed; its flows go on",
            "service www: 192.0.2.10:80/tcp -> 10.0.0.200:80/tcp; flows of the old address go on",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn another_order_of_backends_is_a_change() {
        let mut new = model(2);
        new.pools[0].backends.reverse();
        assert_eq!(
            difference(&model(2), &new),
            ["pool web: backends in another order"]
        );
    }
}
