//! What the core adds to a report.

use std::sync::Arc;

use super::{attachments::Attachment, host::Host, task::Core};
use crate::observe::{Known, KnownInterface};

impl<H: Host> Core<H> {
    /// What only the core knows, at this moment.
    pub(super) fn known(&self) -> Known {
        let interfaces = self.model.interfaces.iter().map(|interface| {
            let link = self.network.links.get(&interface.name).copied().flatten();
            let reason = match (link, self.attachments.get(&interface.name)) {
                (None, _) => Some("there is no such interface at the moment".to_owned()),
                (Some(_), Some(Attachment::Off { reason, .. })) => Some(reason.clone()),
                (Some(link), _) if !link.up => Some("the interface is down".to_owned()),
                (Some(_), Some(Attachment::On(attached))) => attached.fallback.clone(),
                (Some(_), None) => None,
            };
            KnownInterface {
                name: interface.name.clone(),
                ifindex: link.map(|link| link.ifindex),
                reason,
            }
        });
        Known {
            model: Arc::clone(&self.model),
            agent: self.report.clone(),
            interfaces: interfaces.collect(),
            health: self.health.report(|backend| {
                let way = self.network.ways.get(&backend.ip())?;
                way.reason.as_ref().map(ToString::to_string)
            }),
            ways: self.network.ways.clone(),
        }
    }
}
