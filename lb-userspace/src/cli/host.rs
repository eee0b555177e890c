//! What `lb check` can tell of the host that it runs on.

use crate::{
    config::{Diagnostic, Severity},
    model::Model,
    neighbours::{
        self, Watch,
        other_interface::{behind_other_interfaces, named},
    },
};

/// Backends that packets leave to by another interface than those of the configuration. Nothing where some interface of
/// the configuration does not exist: then this is not the host that it is for.
pub(super) async fn warnings(file: &str, model: &Model) -> Vec<Diagnostic> {
    let backends = model.pools.iter().flat_map(|pool| &pool.backends);
    let watch = Watch {
        interfaces: model
            .interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect(),
        destinations: backends.map(|backend| backend.address.ip()).collect(),
    };
    // Whoever may not ask the kernel still has his file checked.
    let Ok(network) = neighbours::look(&watch).await else {
        return Vec::new();
    };
    if network.links.values().any(Option::is_none) {
        return Vec::new();
    }
    let warning = |(interface, names): (&String, &Vec<String>)| Diagnostic {
        severity: Severity::Warning,
        file: file.to_owned(),
        place: None,
        message: format!(
            "packets to {} leave this host by {interface}, which is not in [[interface]]: they get no flows",
            named(names)
        ),
        help: format!("add {interface}, or change the route"),
    };
    behind_other_interfaces(model, &network)
        .iter()
        .map(warning)
        .collect()
}
