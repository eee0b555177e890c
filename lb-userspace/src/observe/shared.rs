//! Backends that several services use. Packets are counted by backend, and of no pair can be said how many it had. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::status::{ServiceReport, SharedBackendReport};

/// Takes the traffic of such backends out of the services' reports, and gives it once each, by address.
pub(super) fn take(services: &mut [ServiceReport]) -> Vec<SharedBackendReport> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for backend in services.iter().flat_map(|service| &service.backends) {
        *uses.entry(&backend.address).or_default() += 1;
    }
    uses.retain(|_, uses| *uses > 1);
    let mut shared: BTreeMap<String, SharedBackendReport> = uses
        .into_keys()
        .map(|address| (address.to_owned(), SharedBackendReport::default()))
        .collect();
    for service in services {
        for backend in &mut service.backends {
            let Some(report) = shared.get_mut(&backend.address) else {
                continue;
            };
            if report.services.is_empty() {
                report.name.clone_from(&backend.name);
                report.address.clone_from(&backend.address);
                report.traffic = backend.traffic.unwrap_or_default();
            }
            report.services.push(service.name.clone());
            backend.traffic = None;
        }
    }
    shared.into_values().collect()
}
