//! The beginning and the end of a core.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use lb_common::abi::address_from_bytes;
use tokio::time::Instant;

use super::{
    StartError,
    desired::{Adopted, watch},
    host::Host,
    inputs::Inputs,
    task::Core,
};
use crate::{addresses::Wanted, dataplane::Dataplane, health::first_checks_within, neighbours};

/// How long a start waits for neighbours before the first reconcile.
pub(super) const NEIGHBOUR_PATIENCE: Duration = Duration::from_millis(500);
/// How long a start waits for the first result of every check, at most.
const FIRST_RESULTS: Duration = Duration::from_secs(5);
impl<H: Host> Core<H> {
    /// Runs the first reconcile. A start that fails takes down what it has made.
    pub(super) async fn begin(mut self, inputs: &mut Inputs) -> Result<Self, StartError> {
        if let Err(error) = self.bring_up(inputs).await {
            if !self.report.adopted {
                for line in self.take_down().await {
                    tracing::warn!("after a failed start something is left: {line}");
                }
            }
            return Err(error);
        }
        Ok(self)
    }

    async fn bring_up(&mut self, inputs: &mut Inputs) -> Result<(), StartError> {
        self.first_reconcile().await?;
        self.checks.reconfigure(&self.model.pools);
        self.first_results(inputs).await?;
        self.sample_counters();
        self.expire_ancient_flows();
        self.watch_for_losses(inputs);
        self.first_checked = !self.health.is_undecided();
        Ok(())
    }

    async fn first_reconcile(&mut self) -> Result<(), StartError> {
        self.actual.tables = self.fresh_tables().await??;
        let watch = watch(&self.model, &self.actual.tables);
        self.network = self.host.watch(watch.clone(), NEIGHBOUR_PATIENCE).await?;
        self.watch = watch;
        for interface in &self.model.interfaces {
            if self
                .network
                .links
                .get(&interface.name)
                .copied()
                .flatten()
                .is_some()
            {
                continue;
            }
            // An adopted data plane is better looked after on the interfaces that are left.
            if !self.report.adopted {
                return Err(StartError::NoInterface(interface.name.clone()));
            }
        }
        let adopted = Adopted::new(&self.model, &self.actual.tables);
        self.health
            .reconfigure(&self.model, SystemTime::now(), |pool, backend| {
                adopted.state(&pool.name, backend.address)
            });
        if let Some(error) = self.reconcile_maps().await?.into_iter().next() {
            return Err(error.into());
        }
        for error in self.attach(!self.report.adopted).await? {
            if !self.report.adopted {
                return Err(error.into());
            }
            tracing::error!(event = "attach_failed", "{error}");
        }
        if !self.model.manage_addresses {
            self.forget_addresses().await?;
        }
        self.detach_unconfigured().await?;
        self.quiet_redirects().await?;
        self.keep_addresses().await?;
        Ok(())
    }

    /// Removes what an earlier agent that managed addresses has left, when it was killed: from the interfaces of the
    /// configuration, and from those that its program runs on.
    async fn forget_addresses(&mut self) -> Result<(), StartError> {
        let links = self.plane.with(Dataplane::links).await??;
        let linked = links.into_iter().map(|link| link.interface);
        let configured = self.model.interfaces.iter();
        let configured = configured.map(|interface| interface.name.clone());
        let interfaces: BTreeSet<_> = configured.chain(linked).collect();
        for address in self.host.forget(interfaces.into_iter().collect()).await? {
            tracing::info!(%address, "VIP of an earlier configuration removed");
        }
        Ok(())
    }

    /// Waits until every backend has been checked once, so that the agent is not called ready while every service is
    /// empty.
    async fn first_results(&mut self, inputs: &mut Inputs) -> Result<(), StartError> {
        let checked = || {
            let pools = self.model.pools.iter();
            pools.filter_map(|pool| Some((pool.check.as_ref()?, pool.backends.len())))
        };
        let longest = checked().map(|(check, _)| check.timeout).max();
        let begun = first_checks_within(checked().map(|(_, backends)| backends).sum());
        let patience = longest.unwrap_or_default() + begun + Duration::from_millis(100);
        let deadline = Instant::now() + patience.min(FIRST_RESULTS);
        while self.health.is_undecided() {
            let result = tokio::select! {
                result = inputs.result(deadline) => result,
                () = self.hurry.notified() => None,
            };
            let Some(result) = result else {
                break;
            };
            // What is here already goes into one reconcile: thousands of backends would take as many otherwise.
            for result in std::iter::once(result).chain(inputs.results_at_hand()) {
                self.transitions
                    .extend(self.health.observe(&result, SystemTime::now()));
            }
            self.reconcile().await?;
        }
        Ok(())
    }

    /// Makes the VIPs addresses of the first interface, or takes them away, as the configuration says; where the host was
    /// told so already, it is not told again.
    pub(super) async fn keep_addresses(&mut self) -> Result<(), neighbours::Error> {
        let wanted = self.wanted_addresses();
        if wanted == self.addresses {
            return Ok(());
        }
        self.addresses.clone_from(&wanted);
        self.host.keep(wanted).await
    }

    /// The VIPs of all services; and, as leaving, those of removed ones for as long as they have flows, to which nobody would
    /// find the way without the address.
    fn wanted_addresses(&self) -> Option<Wanted> {
        let first = self.model.interfaces.first()?;
        if !self.model.manage_addresses {
            return None;
        }
        let configured = self.model.services.iter();
        let addresses = vips(configured.map(|service| service.address.ip()));
        let in_force = self.actual.tables.services.values();
        let in_force = in_force.filter(|row| row.in_use != 0);
        let mut leaving = vips(in_force.map(|row| address_from_bytes(row.vip)));
        leaving.retain(|address| !addresses.contains(address));
        Some(Wanted {
            interface: first.name.clone(),
            addresses,
            leaving,
        })
    }

    /// Takes everything down; gives what could not be. Addresses go first: a host that still has the VIP and no
    /// program any more answers clients with a reset.
    pub(super) async fn take_down(&mut self) -> Vec<String> {
        self.checks.reconfigure(&[]);
        let mut left = Vec::new();
        if let Err(error) = self.host.keep(None).await {
            left.push(error.to_string());
        }
        match self.plane.with(Dataplane::remove).await {
            Ok(Ok(())) => {}
            Ok(Err(problems)) => left.extend(problems),
            Err(lost) => left.push(lost.to_string()),
        }
        left
    }
}

/// The IPv4 addresses among these.
fn vips(addresses: impl Iterator<Item = IpAddr>) -> BTreeSet<Ipv4Addr> {
    addresses
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
        .collect()
}
