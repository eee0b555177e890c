//! Configurations for tests.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::model::{
    AttachMode, Backend, Check, CheckKind, DataPlane, DataPlaneLog, Interface, Mode, Model, Pool,
    Protocol, ReadyWhen, Scheduler, Service,
};

pub(crate) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

pub(crate) fn backend(number: u8) -> Backend {
    Backend {
        name: format!("web{number}"),
        address: address(number),
        weight: 1,
    }
}

/// The service `www` over the checked pool `web` with so many backends, on `eth0`.
pub(crate) fn model(backends: u8) -> Model {
    Model {
        instance: "test".to_owned(),
        manage_addresses: false,
        pin_root: PathBuf::from("/sys/fs/bpf"),
        socket: PathBuf::from("/run/lb/test.sock"),
        ready_when: ReadyWhen::AnyService,
        metrics: None,
        data_plane: DataPlane {
            log: DataPlaneLog::Off,
            flow_entries: 4_096,
        },
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mode: AttachMode::Auto,
        }],
        pools: vec![Pool {
            name: "web".to_owned(),
            check: Some(Check {
                kind: CheckKind::Tcp,
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(500),
                rise: 2,
                fall: 3,
                port: None,
            }),
            backends: (1..=backends).map(backend).collect(),
        }],
        services: vec![Service {
            name: "www".to_owned(),
            address: SocketAddr::from(([192, 0, 2, 10], 80)),
            protocol: Protocol::Tcp,
            pool: "web".to_owned(),
            mode: Mode::Nat,
            scheduler: Scheduler::RoundRobin,
        }],
    }
}
