//! On which interfaces the program runs, and when to try again where it does not.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{host::Host, plane::PlaneLost, task::Core};
use crate::{
    dataplane::{AttachError, Attached, Dataplane, Target},
    model::Interface,
    nic,
};

/// How long after a failure the first attempt comes, and the last.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long after another mode was refused it is tried again: each time the program is off the interface for a moment.
const MODE_RETRY: Duration = Duration::from_hours(1);

/// The program on one interface.
#[derive(Clone, Debug)]
pub(super) enum Attachment {
    /// It runs.
    On(Attached),
    /// It does not.
    Off {
        ifindex: u32,
        reason: String,
        retry_at: Instant,
        delay: Duration,
    },
}

/// The program on all interfaces.
#[derive(Debug, Default)]
pub(super) struct Attachments(BTreeMap<String, Attachment>);

impl Attachments {
    pub(super) fn get(&self, interface: &str) -> Option<&Attachment> {
        self.0.get(interface)
    }

    pub(super) fn is_on(&self, interface: &str) -> bool {
        matches!(self.0.get(interface), Some(Attachment::On(_)))
    }

    /// When the next attempt is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let off = self.0.values().filter_map(|attachment| match attachment {
            Attachment::On(_) => None,
            Attachment::Off { retry_at, .. } => Some(*retry_at),
        });
        off.min()
    }

    pub(super) fn forget(&mut self, interface: &str) {
        self.0.remove(interface);
    }

    /// Whether the program must be attached to the interface of that index now.
    fn wants(&self, interface: &str, ifindex: u32, now: Instant) -> bool {
        match self.0.get(interface) {
            Some(Attachment::On(attached)) => attached.ifindex != ifindex,
            Some(Attachment::Off {
                ifindex: tried,
                retry_at,
                ..
            }) => *tried != ifindex || *retry_at <= now,
            None => true,
        }
    }
}

impl<H: Host> Core<H> {
    /// Attaches the program wherever it should run and does not; gives the failures that are new. With `all_or_none`
    /// it stops at the first.
    pub(super) async fn attach(
        &mut self,
        all_or_none: bool,
    ) -> Result<Vec<AttachError>, PlaneLost> {
        let mut failures = Vec::new();
        let model = std::sync::Arc::clone(&self.model);
        for interface in &model.interfaces {
            let link = self.network.links.get(&interface.name).copied().flatten();
            let Some(link) = link else {
                if matches!(
                    self.attachments.0.remove(&interface.name),
                    Some(Attachment::On(_))
                ) {
                    tracing::warn!(
                        event = "interface_gone",
                        interface = interface.name,
                        "the interface is gone; the program is attached again when it is back"
                    );
                }
                continue;
            };
            if self
                .attachments
                .wants(&interface.name, link.ifindex, Instant::now())
                && let Err((error, known)) = self.attach_one(interface, link.ifindex).await?
                && !known
            {
                failures.push(error);
                if all_or_none {
                    break;
                }
            }
        }
        Ok(failures)
    }

    /// Forgets what was on interfaces that were made anew with the index that they had: the kernel took the program and
    /// the entry in `DEVICES` along with the earlier ones.
    pub(super) async fn forget_remade(&mut self) -> Result<(), PlaneLost> {
        let mut remade = Vec::new();
        for (name, link) in &self.network.links {
            let Some(link) = link else { continue };
            let now = (link.ifindex, link.made);
            let before = self.made.insert(name.clone(), now);
            if before.is_some_and(|(ifindex, made)| ifindex == now.0 && made != now.1) {
                remade.push(name.clone());
            }
        }
        for name in &remade {
            tracing::warn!(
                event = "interface_remade",
                interface = name,
                "the interface was made anew; the program is attached again"
            );
            self.attachments.forget(name);
        }
        if remade.is_empty() {
            return Ok(());
        }
        // Their parameters are new as well.
        self.quiet.doubt();
        if let Ok(fresh) = self.fresh_tables().await? {
            self.actual.tables = fresh;
        }
        Ok(())
    }

    /// Attaches to one interface. A failure comes with whether it is the same as the last time.
    async fn attach_one(
        &mut self,
        interface: &Interface,
        ifindex: u32,
    ) -> Result<Result<(), (AttachError, bool)>, PlaneLost> {
        let name = interface.name.clone();
        let target = Target {
            name: name.clone(),
            ifindex,
            mode: interface.mode,
            anew: self.native_again.remove(&name),
        };
        let observer = std::sync::Arc::clone(&self.observer);
        let attach = move |plane: &mut dyn Dataplane| {
            observer.attaching(&target.name);
            plane.attach(&target)
        };
        match self.plane.with(attach).await? {
            Ok(attached) => {
                let mode = if attached.native { "native" } else { "generic" };
                let how = if attached.adopted {
                    "adopted the link"
                } else {
                    "attached"
                };
                tracing::info!(
                    event = "attached",
                    interface = name,
                    mode,
                    adopted = attached.adopted,
                    "{how} in {mode} mode"
                );
                if let Some(reason) = &attached.fallback {
                    let why = if attached.adopted {
                        ""
                    } else {
                        "native mode is refused: "
                    };
                    let warning = format!(
                        "generic mode, which costs several times as much for a packet: {why}{reason}"
                    );
                    tracing::warn!(event = "generic_mode", interface = name, "{warning}");
                    if let Some(warnings) = &mut self.warnings {
                        warnings.push(format!("{name}: {warning}"));
                    }
                }
                self.tell_notices(&name, &attached).await;
                self.attachments.0.insert(name, Attachment::On(attached));
                Ok(Ok(()))
            }
            Err(error) => {
                let (delay, known) = match self.attachments.0.get(&name) {
                    _ if matches!(error, AttachError::Kept { .. }) => (MODE_RETRY, false),
                    Some(Attachment::Off { delay, reason, .. }) => {
                        ((*delay * 2).min(LAST_RETRY), *reason == error.to_string())
                    }
                    _ => (FIRST_RETRY, false),
                };
                let (reason, retry_at) = (error.to_string(), Instant::now() + delay);
                self.attachments.0.insert(
                    name,
                    Attachment::Off {
                        ifindex,
                        reason,
                        retry_at,
                        delay,
                    },
                );
                Ok(Err((error, known)))
            }
        }
    }

    /// Tells what costs packets or speed on an interface that the program runs on now.
    async fn tell_notices(&mut self, interface: &str, attached: &Attached) {
        let Some((nic, how)) = self.nic(interface, attached).await else {
            return;
        };
        if attached.fallback.is_some() {
            self.generic_under
                .insert(interface.to_owned(), nic.conditions());
        } else {
            self.generic_under.remove(interface);
        }
        for notice in nic::notices(&nic, how) {
            tracing::warn!(event = "interface_notice", interface, "{notice}");
        }
        if let Some(unseen) = nic::unseen(&nic, how) {
            tracing::warn!(event = "interface_unseen", interface, "{unseen}");
        }
    }

    /// What an interface that the program runs on is, and how it runs there; `None` where the driver can't be asked.
    fn nic(
        &self,
        interface: &str,
        attached: &Attached,
    ) -> impl Future<Output = Option<(nic::Nic, nic::Attachment)>> + use<H> {
        let observer = std::sync::Arc::clone(&self.observer);
        let (name, ifindex, native) = (interface.to_owned(), attached.ifindex, attached.native);
        let one_arm = self.model.is_one_arm();
        let read = move || observer.nic(&name, ifindex, native, one_arm);
        let read = tokio::task::spawn_blocking(read);
        async { read.await.ok().flatten() }
    }

    /// Takes the program off interfaces that are not of the configuration.
    pub(super) async fn detach_unconfigured(&mut self) -> Result<(), PlaneLost> {
        let model = std::sync::Arc::clone(&self.model);
        let configured = move |name: &str| {
            model
                .interfaces
                .iter()
                .any(|interface| interface.name == name)
        };
        let detached = self
            .plane
            .with(move |plane| -> Result<Vec<String>, AttachError> {
                let links = plane.links()?;
                let mut detached = Vec::new();
                for link in links
                    .into_iter()
                    .filter(|link| !configured(&link.interface))
                {
                    plane.detach(&link.interface)?;
                    detached.push(link.interface);
                }
                Ok(detached)
            })
            .await?;
        match detached {
            Ok(names) => {
                for name in names {
                    self.attachments.forget(&name);
                    tracing::info!(
                        event = "detached_interface",
                        interface = name,
                        "detached, it is not configured"
                    );
                }
            }
            Err(error) => tracing::error!(event = "detach_failed", "{error}"),
        }
        Ok(())
    }

    /// Has native mode tried again on interfaces that are in generic mode by `auto`, where what may have kept them out
    /// of it has changed.
    pub(super) async fn try_native_again(&mut self) {
        for (name, before) in self.generic_under.clone() {
            let Some(Attachment::On(attached)) = self.attachments.get(&name) else {
                continue;
            };
            let Some((nic, _)) = self.nic(&name, attached).await else {
                continue;
            };
            if nic.conditions() != before {
                tracing::info!(
                    event = "native_again",
                    interface = name,
                    "its MTU, its queues or its offloads have changed; native mode is tried again"
                );
                self.attachments.forget(&name);
                self.native_again.insert(name);
            }
        }
    }

    /// Compares the links in force with what should be; a link that is not as it should be is made anew.
    pub(super) async fn compare_links(&mut self) -> Result<usize, PlaneLost> {
        let links = match self.plane.with(Dataplane::links).await? {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!("the program's links can't be looked at: {error}");
                return Ok(0);
            }
        };
        let mut wrong = Vec::new();
        for (name, attachment) in &self.attachments.0 {
            let Attachment::On(attached) = attachment else {
                continue;
            };
            let link = links.iter().find(|link| link.interface == *name);
            if link.is_none_or(|link| link.ifindex != attached.ifindex || !link.current) {
                wrong.push(name.clone());
            }
        }
        for name in &wrong {
            self.attachments.forget(name);
        }
        Ok(wrong.len())
    }
}
