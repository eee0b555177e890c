//! What may happen to the balancer, and what of it concerns its network.

use super::*;

/// Something that happens to the balancer.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Service {
        service: u8,
        pool: Option<usize>,
    },
    Member {
        pool: usize,
        backend: u8,
    },
    Up {
        pool: usize,
        backend: u8,
    },
    Route {
        backend: u8,
        interface: usize,
        gateway: Option<u8>,
        mac: u8,
    },
    Lost {
        backend: u8,
        known: bool,
    },
    Link {
        interface: usize,
        configured: bool,
        present: bool,
    },
    Advance(u64),
    Open(u8),
    Close(usize),
    Scan,
    Restart,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let backend = || 0..BACKENDS;
    prop_oneof![
        3 => (0..SERVICES, proptest::option::weighted(0.7, 0..POOLS.len()))
            .prop_map(|(service, pool)| Step::Service { service, pool }),
        4 => (0..POOLS.len(), backend()).prop_map(|(pool, backend)| Step::Member { pool, backend }),
        4 => (0..POOLS.len(), backend()).prop_map(|(pool, backend)| Step::Up { pool, backend }),
        4 => (backend(), 0..2_usize, proptest::option::of(0..2_u8), 0..3_u8)
            .prop_map(|(backend, interface, gateway, mac)| Step::Route { backend, interface, gateway, mac }),
        1 => (backend(), any::<bool>()).prop_map(|(backend, known)| Step::Lost { backend, known }),
        1 => (0..2_usize, proptest::bool::weighted(0.8), proptest::bool::weighted(0.8))
            .prop_map(|(interface, configured, present)| Step::Link { interface, configured, present }),
        3 => (0..3_000_u64).prop_map(Step::Advance),
        6 => (0..SERVICES).prop_map(Step::Open),
        4 => any::<usize>().prop_map(Step::Close),
        4 => Just(Step::Scan),
        1 => Just(Step::Restart),
    ]
}

impl World {
    /// Something happens to the host's network.
    pub(super) fn network(&mut self, step: &Step) {
        match *step {
            Step::Route {
                backend: number,
                interface,
                gateway,
                mac,
            } => {
                let address = gateway.map_or(backend(number).ip(), |host| {
                    IpAddr::from([10, 0, 0, 250 + host])
                });
                let key = HopKey {
                    interface: INTERFACES[interface].to_owned(),
                    address,
                };
                // A neighbour has one MAC address, whoever is behind it.
                for hop in self.desired.hops.values_mut() {
                    if let Hop::Known {
                        key: other,
                        mac: known,
                    } = hop
                        && *other == key
                    {
                        *known = [2, 0, 0, 0, 0, mac];
                    }
                }
                self.desired.hops.insert(
                    backend(number).ip(),
                    Hop::Known {
                        key,
                        mac: [2, 0, 0, 0, 0, mac],
                    },
                );
            }
            Step::Lost {
                backend: number,
                known: true,
            } => {
                let place = self
                    .desired
                    .hops
                    .entry(backend(number).ip())
                    .or_insert(Hop::Unreachable);
                let key = match place {
                    Hop::Known { key, .. } => Some(key.clone()),
                    _ => None,
                };
                *place = Hop::Keep { key };
            }
            Step::Lost {
                backend: number,
                known: false,
            } => {
                self.desired
                    .hops
                    .insert(backend(number).ip(), Hop::Unreachable);
            }
            Step::Link {
                interface,
                configured,
                present,
            } => {
                self.next_ifindex += 1;
                let name = INTERFACES[interface].to_owned();
                let ifindex = if present { self.next_ifindex } else { 0 };
                let state = Interface {
                    ifindex,
                    mac: [2, 1, 1, 1, 1, 1],
                    ipv4: Some([10, 0, 0, 254].into()),
                    mtu: 1_500,
                };
                self.desired.interfaces.remove(&name);
                if configured {
                    self.desired.interfaces.insert(name, state);
                }
            }
            _ => {}
        }
    }
}
