//! The file as it was read, each value beside its place, before the rules that look across sections.

use std::net::SocketAddr;

use super::section::Located;
use crate::model::{Backend, Check, Interface, Mode, Pool, Protocol, Scheduler, Service};

/// A `None` means that a finding was reported.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) interfaces: Vec<InterfaceDraft>,
    pub(super) pools: Vec<PoolDraft>,
    pub(super) services: Vec<ServiceDraft>,
}

#[derive(Debug)]
pub(super) struct InterfaceDraft {
    pub(super) name: Option<Located<String>>,
    pub(super) interface: Option<Interface>,
}

#[derive(Debug)]
pub(super) struct PoolDraft {
    pub(super) name: Option<Located<String>>,
    /// `None` where there is no check or a wrong one.
    pub(super) check: Option<Check>,
    pub(super) backends: Vec<BackendDraft>,
}

#[derive(Debug)]
pub(super) struct BackendDraft {
    /// Where the file gives one, its place; else that of the address.
    pub(super) name: Option<Located<String>>,
    pub(super) address: Option<Located<SocketAddr>>,
    pub(super) weight: Option<Located<u16>>,
}

#[derive(Debug)]
pub(super) struct ServiceDraft {
    pub(super) name: Option<Located<String>>,
    pub(super) address: Option<Located<SocketAddr>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) pool: Option<Located<String>>,
    pub(super) mode: Option<Mode>,
    pub(super) scheduler: Option<Scheduler>,
}

impl PoolDraft {
    fn finish(self) -> Option<Pool> {
        let backends = self
            .backends
            .into_iter()
            .map(BackendDraft::finish)
            .collect::<Option<_>>()?;
        Some(Pool {
            name: self.name?.value,
            check: self.check,
            backends,
        })
    }
}

impl BackendDraft {
    fn finish(self) -> Option<Backend> {
        Some(Backend {
            name: self.name?.value,
            address: self.address?.value,
            weight: self.weight?.value,
        })
    }
}

impl ServiceDraft {
    fn finish(self) -> Option<Service> {
        Some(Service {
            name: self.name?.value,
            address: self.address?.value,
            protocol: self.protocol?,
            pool: self.pool?.value,
            mode: self.mode?,
            scheduler: self.scheduler?,
        })
    }
}

impl Draft {
    /// The parts of the model; `None` where any value is missing.
    pub(super) fn finish(self) -> Option<(Vec<Interface>, Vec<Pool>, Vec<Service>)> {
        Some((
            self.interfaces
                .into_iter()
                .map(|draft| draft.interface)
                .collect::<Option<_>>()?,
            self.pools
                .into_iter()
                .map(PoolDraft::finish)
                .collect::<Option<_>>()?,
            self.services
                .into_iter()
                .map(ServiceDraft::finish)
                .collect::<Option<_>>()?,
        ))
    }
}
