//! Rows of the control maps: what the agent would write.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, xdp::DevMap};
use lb_common::abi::word::{BackendState, Slot, SlotRange, Way};
use lb_common::abi::{
    BackendRow, ConfigRow, Control, InterfaceRow, LAYOUT_VERSION, Mode, OWN_MACS, Protocol,
    Scheduler, ServiceKey, ServiceRow, address_bytes,
};
use lb_common::filter;

use super::{Program, Row, TICKS_PER_SECOND};
use crate::frames::Mac;

/// The section that the loader makes the map of.
const CONTROL: &str = ".bss.control";

impl Program {
    /// Writes the configuration row.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_config(&mut self, flags: u32) -> Result<()> {
        let row = ConfigRow {
            layout_version: LAYOUT_VERSION,
            ticks_per_second: TICKS_PER_SECOND,
            flags,
            interfaces: 2,
            ..ConfigRow::default()
        };
        self.write_control(|control| control.config = row)
    }

    /// Writes a row of `INTERFACES`.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_interface(
        &mut self,
        slot: u8,
        ifindex: u32,
        mac: Mac,
        ipv4: Ipv4Addr,
    ) -> Result<()> {
        let mac = Way {
            mac: mac.0,
            ..Way::default()
        }
        .pack();
        let row = InterfaceRow {
            mac,
            ifindex,
            ipv4: ipv4.octets(),
            max_frame: u32::MAX,
            ..InterfaceRow::default()
        };
        self.write_control(|control| {
            control.interfaces[usize::from(slot)] = row;
            control.own_macs[(ifindex % OWN_MACS) as usize] = mac;
        })
    }

    /// Limits the frames that leave by an interface.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_mtu(&mut self, slot: u8, mtu: u32) -> Result<()> {
        self.write_control(|control| control.interfaces[usize::from(slot)].max_frame = mtu + 14)
    }

    /// Makes a backend of row `id`, generation 1, behind this MAC address on the interface of a slot.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn set_backend(
        &mut self,
        id: u16,
        address: SocketAddrV4,
        hop: Option<(Mac, u8)>,
    ) -> Result<()> {
        let way = hop.map_or(Way::default(), |(mac, interface)| Way {
            mac: mac.0,
            interface,
            flags: Way::RESOLVED,
        });
        let state = BackendState {
            flags: BackendState::IN_USE | BackendState::ACCEPTS,
            generation: 1,
        };
        let row = BackendRow::new(address.into(), way, state);
        self.write_control(|control| control.backends[usize::from(id)] = row)?;
        self.admit(address, &[Protocol::Tcp, Protocol::Udp])
    }

    /// Rewrites address and state of a backend, which keeps its way.
    ///
    /// # Errors
    /// Those of the map.
    pub fn set_backend_state(
        &mut self,
        id: u16,
        address: SocketAddrV4,
        flags: u16,
        generation: u16,
    ) -> Result<()> {
        let state = BackendState { flags, generation };
        self.write_control(|control| {
            let row = &mut control.backends[usize::from(id)];
            *row = BackendRow::new(address.into(), row.way(), state);
        })
    }

    /// Makes a service of row `id` whose slots are these backends of generation 1.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn set_service(
        &mut self,
        id: u32,
        address: SocketAddrV4,
        protocol: Protocol,
        backends: &[u16],
    ) -> Result<()> {
        let offset = id * 64;
        for (position, backend) in backends.iter().enumerate() {
            let slot = Slot {
                backend: *backend,
                generation: 1,
            };
            self.set("SLOTS", offset + u32::try_from(position)?, slot.pack())?;
        }
        let vip = address_bytes((*address.ip()).into());
        let range = SlotRange {
            offset,
            length: u32::try_from(backends.len())?,
        };
        let row = ServiceRow {
            slots: range.pack(),
            vip,
            port_be: address.port().to_be_bytes(),
            protocol: protocol as u8,
            mode: Mode::Nat as u8,
            scheduler: Scheduler::RoundRobin as u8,
            in_use: 1,
            generation: 1,
            reserved: [0; 4],
        };
        self.write_control(|control| control.services[id as usize] = row)?;
        self.admit(address, &[protocol])?;
        let mut keys = HashMap::<_, Row<ServiceKey>, u32>::try_from(self.map("SERVICE_KEYS")?)?;
        for (port, protocol, value) in [
            (address.port(), protocol as u8, id),
            (0, protocol as u8, ServiceKey::VIP_MARKER),
            (0, 1, ServiceKey::VIP_MARKER),
        ] {
            keys.insert(
                Row(ServiceKey::new(vip, port.to_be_bytes(), protocol)),
                value,
                0,
            )?;
        }
        self.write_control(|control| control.keys_version += 1)
    }

    /// Takes the key of a service away, so that new flows find none.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn remove_key(&mut self, address: SocketAddrV4, protocol: Protocol) -> Result<()> {
        let vip = address_bytes((*address.ip()).into());
        let key = ServiceKey::new(vip, address.port().to_be_bytes(), protocol as u8);
        let mut keys = HashMap::<_, Row<ServiceKey>, u32>::try_from(self.map("SERVICE_KEYS")?)?;
        keys.remove(&Row(key))?;
        self.write_control(|control| control.keys_version += 1)
    }

    /// Adds an address and its port to the filter.
    ///
    /// # Errors
    /// Those of the map.
    pub fn admit(&mut self, endpoint: SocketAddrV4, protocols: &[Protocol]) -> Result<()> {
        self.write_control(|control| {
            for (word, bit) in filter::places(endpoint, protocols) {
                control.filter[word as usize] |= bit;
            }
        })
    }

    /// Names the device of a slot, by its index in the caller's namespace.
    ///
    /// # Errors
    /// Where there is no such device.
    pub fn set_device(&mut self, slot: u8, ifindex: u32) -> Result<()> {
        let mut devices = DevMap::try_from(self.map("DEVICES")?)?;
        Ok(devices.set(slot.into(), ifindex, None, 0)?)
    }

    /// Makes changes whose control tables are written once, at the end: they are nearly a megabyte.
    ///
    /// # Errors
    /// Those of the changes, or of the map.
    pub fn together(&mut self, changes: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.deferred = true;
        let made = changes(self);
        self.deferred = false;
        made.and(self.write_control(|_| ()))
    }

    fn write_control(&mut self, change: impl FnOnce(&mut Control)) -> Result<()> {
        change(&mut self.control.0);
        if self.deferred {
            return Ok(());
        }
        let map = self.object.map_mut(CONTROL).context("no control tables")?;
        let mut tables = Array::<_, Row<Control>>::try_from(map)?;
        Ok(tables.set(0, &self.control as &Row<Control>, 0)?)
    }

    pub(super) fn set<T: Copy + 'static>(&mut self, map: &str, row: u32, value: T) -> Result<()> {
        let mut rows = Array::<_, Row<T>>::try_from(self.map(map)?)?;
        rows.set(row, Row(value), 0)
            .with_context(|| format!("row {row} of {map}"))
    }
}
