//! What the core adds to a report.

use std::sync::Arc;

use super::{attachments::Attachment, host::Host, task::Core};
use crate::observe::{Known, KnownInterface};

impl<H: Host> Core<H> {
    /// What only the core knows, at this moment.
    pub(super) fn known(&self) -> Known {
        let mut refused = self.refused_vips();
        let interfaces = self.model.interfaces.iter().map(|interface| {
            let link = self.network.links.get(&interface.name).copied().flatten();
            let reason = match (link, self.attachments.get(&interface.name)) {
                (None, _) => Some("there is no such interface at the moment".to_owned()),
                (Some(_), Some(Attachment::Off { reason, .. })) => Some(reason.clone()),
                (Some(link), _) if !link.up => Some("the interface is down".to_owned()),
                (Some(_), Some(Attachment::On(attached))) => attached.fallback.clone(),
                (Some(_), None) => None,
            };
            // VIPs are the first interface's.
            let reasons: Vec<_> = reason.into_iter().chain(refused.take()).collect();
            let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
            KnownInterface {
                notice: self
                    .quiet
                    .trouble()
                    .filter(|_| self.model.is_one_arm())
                    .cloned(),
                name: interface.name.clone(),
                ifindex: link.map(|link| link.ifindex),
                reason,
            }
        });
        let mut agent = self.report.clone();
        agent.not_ready.extend(self.obstacle.clone());
        if !self.first_checked {
            let waiting = "some backends have not been checked for the first time yet";
            agent.not_ready.push(waiting.to_owned());
        }
        Known {
            model: Arc::clone(&self.model),
            agent,
            interfaces: interfaces.collect(),
            health: self.health.report(|backend| {
                let way = self.network.ways.get(&backend.ip())?;
                way.reason.as_ref().map(ToString::to_string)
            }),
            refused_vips: self
                .host
                .refused()
                .iter()
                .map(|(vip, why)| (*vip, why.to_string()))
                .collect(),
            ways: self.network.ways.clone(),
        }
    }

    /// Which VIPs the host does not take, in words.
    fn refused_vips(&self) -> Option<String> {
        let refused = self.host.refused();
        let (address, why) = refused.iter().next()?;
        let more = match refused.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!("the VIP {address} is not taken: {why}{more}"))
    }
}
