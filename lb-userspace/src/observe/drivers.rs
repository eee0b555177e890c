//! What drivers count and how they are set, as the report shows it.

use std::collections::BTreeMap;

use super::{Known, Observer};
use crate::{
    dataplane::{InForce, InForceMode, cpus},
    nic::{self, Attachment, Nic, losses},
};

/// An interface's driver.
#[derive(Clone, Debug, Default)]
pub(super) struct Driver {
    pub(super) counters: BTreeMap<String, u64>,
    /// Of those that mean lost packets: how far they moved since the program was attached.
    pub(super) losses: BTreeMap<String, u64>,
    pub(super) notices: Vec<String>,
}

impl Observer {
    /// The program is about to be attached to an interface, or adopted: what its driver counts from now on is told.
    pub fn attaching(&self, interface: &str) {
        match self.readings.driver_counters(interface) {
            Ok(counters) => {
                self.memory().drivers.insert(interface.to_owned(), counters);
            }
            Err(error) => tracing::debug!(interface, %error, "the driver's counters can't be read"),
        }
    }

    /// The interface and how the program runs there; `None` where it is gone.
    pub fn nic(
        &self,
        interface: &str,
        ifindex: u32,
        native: bool,
        one_arm: bool,
    ) -> Option<(Nic, Attachment)> {
        let attachment = Attachment {
            native,
            one_arm,
            cpus: cpus().unwrap_or(1),
        };
        match self.readings.nic(interface, ifindex) {
            Ok(nic) => Some((nic, attachment)),
            Err(error) => {
                tracing::debug!(interface, %error, "the driver can't be asked");
                None
            }
        }
    }

    /// The drivers of the interfaces that a program runs on.
    pub(super) fn drivers(
        &self,
        known: &Known,
        attached: &BTreeMap<String, InForce>,
    ) -> BTreeMap<String, Driver> {
        let one_arm = known.model.is_one_arm();
        let driver = |name: &String, ifindex: u32, native: bool| {
            let counters = self.readings.driver_counters(name).unwrap_or_default();
            let losses = match self.memory().drivers.get(name) {
                Some(before) => losses::since(before, &counters),
                None => BTreeMap::new(),
            };
            let nic = self.nic(name, ifindex, native, one_arm);
            Driver {
                counters,
                losses,
                notices: nic.map_or_else(Vec::new, |(nic, how)| nic::notices(&nic, how)),
            }
        };
        let present = known.interfaces.iter();
        present
            .filter_map(|interface| {
                let (name, ifindex) = (&interface.name, interface.ifindex?);
                let native = attached.get(name)?.mode == InForceMode::Native;
                Some((name.clone(), driver(name, ifindex, native)))
            })
            .collect()
    }
}
