//! A new configuration: refused without a trace, or applied whole.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    Applied, ReloadReply, StartError,
    attachments::Attachment,
    begin::NEIGHBOUR_PATIENCE,
    desired::{Adopted, desired, watch},
    difference::difference,
    health::Health,
    host::Host,
    inputs::Inputs,
    plane::PlaneLost,
    task::{Core, Next},
};
use crate::{
    dataplane::Fresh,
    model::{AttachMode, Interface, Model},
    neighbours::other_interface::{behind_other_interfaces, lost},
    observe::timestamp,
    plan::plan,
};

/// A reload whose program is being loaded.
pub(super) struct Pending {
    model: Arc<Model>,
    reply: oneshot::Sender<ReloadReply>,
}

impl<H: Host> Core<H> {
    /// Checks what only the host can know, then applies.
    ///
    /// 1. What can't change while the agent runs is refused, and so are interfaces that do not exist and what the maps
    ///    have no room for.
    /// 2. Where the program's load-time constants change, another one is loaded beside it. Meanwhile everything goes on
    ///    with the configuration in force; then 1 is done again.
    /// 3. The program is replaced in every link.
    /// 4. New interfaces are attached to, and others in the mode that is new to them; where one refuses, all is taken
    ///    back, the program among it.
    /// 5. The rest is applied as one plan.
    pub(super) async fn reload(
        &mut self,
        model: Model,
        reply: oneshot::Sender<ReloadReply>,
        inputs: &Inputs,
    ) -> Result<Next, PlaneLost> {
        let new = Arc::new(model);
        let refusals = if self.pending.is_some() {
            vec!["another reload is under way\n   help: try again in a few seconds".to_owned()]
        } else {
            self.refusals(&Arc::clone(&self.model), &new).await
        };
        if !refusals.is_empty() {
            drop(reply.send(Err(refusals)));
            return Ok(Next::Wait);
        }
        let settings = new.data_plane;
        if self.model.data_plane == settings {
            let answer = self.change(new, None).await?;
            drop(reply.send(answer));
            return Ok(Next::Reconcile);
        }
        let load = self.plane.with(|plane| plane.loader()).await?;
        let loaded = inputs.loaded();
        self.tasks.spawn(async move {
            let fresh = match spawn_blocking(move || load(settings)).await {
                Ok(fresh) => fresh.map_err(|error| error.to_string()),
                Err(error) => Err(format!("loading the program has failed: {error}")),
            };
            // Closed only when the core has ended.
            drop(loaded.send(fresh).await);
        });
        self.pending = Some(Pending { model: new, reply });
        Ok(Next::Wait)
    }

    /// Goes on with the reload whose program was loaded.
    pub(super) async fn loaded(
        &mut self,
        loaded: Result<Fresh, String>,
    ) -> Result<Next, PlaneLost> {
        let Some(Pending { model, reply }) = self.pending.take() else {
            return Ok(Next::Wait);
        };
        let answer = match loaded {
            Ok(fresh) => match self.refusals(&Arc::clone(&self.model), &model).await {
                refusals if refusals.is_empty() => self.change(model, Some(fresh)).await?,
                refusals => Err(refusals),
            },
            Err(refusal) => Err(vec![refusal]),
        };
        drop(reply.send(answer));
        Ok(Next::Reconcile)
    }

    /// Steps 3 to 5 of a reload, with what was warned of meanwhile.
    async fn change(
        &mut self,
        new: Arc<Model>,
        fresh: Option<Fresh>,
    ) -> Result<ReloadReply, PlaneLost> {
        self.warnings = Some(Vec::new());
        let answer = self.change_all(new, fresh).await?;
        let warnings = self.warnings.take().unwrap_or_default();
        Ok(answer.map(|applied| Applied { applied, warnings }))
    }

    async fn change_all(
        &mut self,
        new: Arc<Model>,
        fresh: Option<Fresh>,
    ) -> Result<Result<Vec<String>, Vec<String>>, PlaneLost> {
        let old = Arc::clone(&self.model);
        let mut before = None;
        if let Some(fresh) = fresh {
            match self.plane.with(move |plane| plane.replace(fresh)).await? {
                Ok(earlier) => before = Some(earlier),
                Err(error) => return Ok(Err(vec![error.to_string()])),
            }
        }
        if let Err(mut refusals) = self.try_interfaces(&old, &new).await? {
            if let Some(earlier) = before {
                let back = self.plane.with(move |plane| plane.replace(earlier)).await?;
                refusals.extend(back.err().map(|error| error.to_string()));
            }
            return Ok(Err(refusals));
        }
        let before = behind_other_interfaces(&old, &self.network);
        self.adopt(Arc::clone(&new)).await?;
        let lost = lost(&before, &behind_other_interfaces(&new, &self.network));
        for line in &lost {
            tracing::warn!(event = "backends_lost", "{line}");
        }
        self.checks.reconfigure(&new.pools);
        self.report.config_loaded = timestamp(SystemTime::now());
        self.report.config_error = None;
        let mut applied = difference(&old, &new);
        applied.extend(lost);
        Ok(Ok(applied))
    }

    /// Makes `model` the configuration in force.
    async fn adopt(&mut self, model: Arc<Model>) -> Result<(), PlaneLost> {
        let changed: Vec<_> = model
            .interfaces
            .iter()
            .filter(|new| changes_mode(&self.model, new))
            .cloned()
            .collect();
        for interface in changed {
            self.attachments.forget(&interface.name);
        }
        self.model = model;
        let adopted = Adopted::new(&self.model, &self.actual.tables);
        self.health
            .reconfigure(&self.model, SystemTime::now(), |pool, backend| {
                // A backend that some service of the pool sends flows to stays where it is; others begin unknown.
                adopted
                    .state(&pool.name, backend.address)
                    .filter(|in_rotation| *in_rotation)
            });
        self.follow_backends(NEIGHBOUR_PATIENCE).await;
        self.reconcile().await?;
        self.detach_unconfigured().await
    }

    /// Attaches to the interfaces that are new, and to those whose mode is, with everything else as it was; takes all
    /// of it back where one refuses.
    async fn try_interfaces(
        &mut self,
        old: &Arc<Model>,
        new: &Arc<Model>,
    ) -> Result<Result<(), Vec<String>>, PlaneLost> {
        let mut both = Model::clone(old);
        let mut tried = BTreeSet::new();
        for interface in &new.interfaces {
            let known = both
                .interfaces
                .iter_mut()
                .find(|known| known.name == interface.name);
            match known {
                Some(known) if known.mode == interface.mode => continue,
                Some(_) if interface.mode == AttachMode::Auto && !self.is_generic(interface) => {
                    continue;
                }
                Some(known) => known.mode = interface.mode,
                None => both.interfaces.push(interface.clone()),
            }
            tried.insert(interface.name.clone());
        }
        if tried.is_empty() {
            return Ok(Ok(()));
        }
        let earlier = self.in_the_modes_in_force(old);
        for interface in &old.interfaces {
            let auto = both.interfaces.iter().any(|new| {
                tried.contains(&new.name)
                    && (&new.name, new.mode) == (&interface.name, AttachMode::Auto)
            });
            if auto {
                self.attachments.forget(&interface.name);
                self.native_again.insert(interface.name.clone());
            }
        }
        self.adopt(Arc::new(both)).await?;
        let refusals: Vec<_> = tried
            .iter()
            .filter_map(|interface| match self.attachments.get(interface) {
                Some(Attachment::Off { reason, .. }) => Some(reason.clone()),
                _ => None,
            })
            .collect();
        if refusals.is_empty() {
            return Ok(Ok(()));
        }
        for interface in &tried {
            self.attachments.forget(interface);
        }
        self.adopt(Arc::new(earlier)).await?;
        self.adopt(Arc::clone(old)).await?;
        Ok(Err(refusals))
    }

    /// Whether the program runs there in generic mode.
    fn is_generic(&self, interface: &Interface) -> bool {
        let attachment = self.attachments.get(&interface.name);
        matches!(attachment, Some(Attachment::On(attached)) if !attached.native)
    }

    /// The model, with the modes that its interfaces are in now in the place of `auto`.
    fn in_the_modes_in_force(&self, model: &Model) -> Model {
        let mut exact = model.clone();
        for interface in &mut exact.interfaces {
            if let Some(Attachment::On(attached)) = self.attachments.get(&interface.name) {
                interface.mode = if attached.native {
                    AttachMode::Native
                } else {
                    AttachMode::Generic
                };
            }
        }
        exact
    }

    /// Why the configuration can't be applied, as far as that can be told without changing anything.
    async fn refusals(&mut self, old: &Model, new: &Model) -> Vec<String> {
        let mut refusals = fixed(old, new);
        let network = match self.host.look(watch(new, &self.actual.tables)).await {
            Ok(network) => network,
            Err(error) => {
                refusals.push(error.to_string());
                return refusals;
            }
        };
        let known: BTreeSet<_> = old
            .interfaces
            .iter()
            .map(|interface| &interface.name)
            .collect();
        for interface in new
            .interfaces
            .iter()
            .filter(|interface| !known.contains(&interface.name))
        {
            if network
                .links
                .get(&interface.name)
                .copied()
                .flatten()
                .is_none()
            {
                refusals.push(StartError::NoInterface(interface.name.clone()).to_string());
            }
        }
        // With every backend in rotation, which takes the most room.
        let mut all = new.clone();
        all.pools.iter_mut().for_each(|pool| pool.check = None);
        let mut health = Health::default();
        health.reconfigure(&all, SystemTime::now(), |_, _| None);
        let wanted = desired(&all, &health, &network, self.constants);
        let now = tokio::time::Instant::now().into_std();
        refusals.extend(
            plan(&wanted, &self.actual, now)
                .refused
                .iter()
                .map(ToString::to_string),
        );
        refusals
    }
}

/// What can't change while the agent runs.
fn fixed(old: &Model, new: &Model) -> Vec<String> {
    let mut refusals = Vec::new();
    let mut check = |key: &str, old: &str, new: &str| {
        if old != new {
            refusals.push(format!(
                "`{key}` can't change from \"{old}\" to \"{new}\" while the agent runs\n   \
                 help: change it back, or stop this agent and start another"
            ));
        }
    };
    check("instance", &old.instance, &new.instance);
    let paths = [
        ("pin_root", &old.pin_root, &new.pin_root),
        ("socket", &old.socket, &new.socket),
    ];
    for (key, old, new) in paths {
        check(key, &old.to_string_lossy(), &new.to_string_lossy());
    }
    let (before, after) = (old.data_plane.flow_entries, new.data_plane.flow_entries);
    if before != after {
        refusals.push(format!(
            "`flow_entries` can't change from {before} to {after} while the agent runs: a flow table of another size is \
             a new one\n   help: change it back, or stop the agent (which ends all flows) and start it again"
        ));
    }
    refusals
}

/// Whether the program must be attached again because the mode is another.
fn changes_mode(old: &Model, new: &Interface) -> bool {
    let before = old
        .interfaces
        .iter()
        .find(|interface| interface.name == new.name);
    before.is_some_and(|before| before.mode != new.mode && new.mode != AttachMode::Auto)
}
