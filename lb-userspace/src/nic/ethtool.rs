//! What a driver says of its interface: the ioctl behind ethtool(8).
//!
//! An ioctl, because the driver's name and its own counters are not to be had by ethtool's netlink family. Structures
//! and numbers are those of `include/uapi/linux/ethtool.h`. Nothing here needs a privilege and nothing changes anything.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Channels, Feature};

mod command {
    pub(super) const DRIVER: u32 = 0x03;
    pub(super) const STRINGS: u32 = 0x1b;
    pub(super) const STATISTICS: u32 = 0x1d;
    pub(super) const SET_SIZE: u32 = 0x37;
    pub(super) const FEATURES: u32 = 0x3a;
    pub(super) const CHANNELS: u32 = 0x3c;
}

/// A set of names.
#[derive(Clone, Copy)]
enum Names {
    Statistics = 1,
    Features = 4,
}

/// Bytes of a name, `ETH_GSTRING_LEN`.
const NAME: usize = 32;
/// The kernel writes as many counters as the driver has when they are asked for, and the driver may have got queues
/// since they were counted. Room for so many times as many, and some more.
const ROOM: usize = 4;
const MORE: usize = 4_096;

/// An interface, as the namespace of the calling thread knows it.
pub(super) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    pub(super) fn of(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self { socket, name })
    }

    /// Name of the driver.
    pub(super) fn driver(&self) -> io::Result<String> {
        /// Words of `struct ethtool_drvinfo`; the name is the first field after the command.
        const WORDS: usize = 49;
        let mut words = [0; WORDS];
        words[0] = command::DRIVER;
        self.ioctl(&mut words)?;
        Ok(text(&words[1..=NAME / 4]))
    }

    /// Features by name.
    pub(super) fn features(&self) -> io::Result<Vec<(String, Feature)>> {
        /// Words of `struct ethtool_get_features_block`.
        const BLOCK: usize = 4;
        let names = self.names(Names::Features)?;
        let blocks = names.len().div_ceil(32);
        let mut words = vec![0; 2 + blocks * BLOCK];
        (words[0], words[1]) = (command::FEATURES, count(blocks)?);
        // The kernel fills no more blocks than there is room for.
        self.ioctl(&mut words)?;
        let feature = |number: usize| {
            let block = 2 + number / 32 * BLOCK;
            let has = |word: usize| words[block + word] >> (number % 32) & 1 == 1;
            let (available, active, never_changed) = (has(0), has(2), has(3));
            Feature {
                on: active,
                fixed: !available || never_changed,
            }
        };
        let features = names.into_iter().enumerate();
        Ok(features
            .map(|(number, name)| (name, feature(number)))
            .collect())
    }

    /// Combined queues.
    pub(super) fn channels(&self) -> io::Result<Channels> {
        /// Words of `struct ethtool_channels`.
        const WORDS: usize = 9;
        let mut words = [0; WORDS];
        words[0] = command::CHANNELS;
        self.ioctl(&mut words)?;
        Ok(Channels {
            combined: words[8],
            most: words[4],
        })
    }

    /// The driver's counters, in its order.
    pub(super) fn statistics(&self) -> io::Result<Vec<(String, u64)>> {
        let names = self.names(Names::Statistics)?;
        let mut words = vec![0; 2 + 2 * (names.len() * ROOM + MORE)];
        (words[0], words[1]) = (command::STATISTICS, count(names.len())?);
        self.ioctl(&mut words)?;
        let values = words[2..].chunks_exact(2).map(|pair| {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&pair[0].to_ne_bytes());
            bytes[4..].copy_from_slice(&pair[1].to_ne_bytes());
            u64::from_ne_bytes(bytes)
        });
        // Names and values of another number of queues do not belong together.
        if usize::try_from(words[1]).ok() != Some(names.len()) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        Ok(names.into_iter().zip(values).collect())
    }

    fn names(&self, set: Names) -> io::Result<Vec<String>> {
        let mut size = [command::SET_SIZE, 0, 1 << set as u32, 0, 0];
        self.ioctl(&mut size)?;
        // The mask comes back without the sets that the driver does not have.
        let strings = if size[2] == 0 { 0 } else { size[4] as usize };
        let mut words = vec![0; 3 + (strings * ROOM + MORE) * NAME / 4];
        (words[0], words[1], words[2]) = (command::STRINGS, set as u32, count(strings)?);
        if strings > 0 {
            self.ioctl(&mut words)?;
        }
        let names = words[3..].chunks_exact(NAME / 4).map(text);
        Ok(names.take(strings).collect())
    }

    /// Carries out one command. `words` is its structure, with the room that the command's answer takes.
    fn ioctl(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: words.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the kernel reads the name from `request` and follows its pointer to `words`, both of which live until
        // after the call. It writes there what the command's structure holds: a fixed size, as many blocks as `words`
        // says, or as many names or counters as the driver has, for which the callers leave `ROOM`.
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                libc::SIOCETHTOOL as _,
                &raw mut request,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn count(of: usize) -> io::Result<u32> {
    u32::try_from(of).map_err(io::Error::other)
}

/// A string that ends in zero.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    let bytes: Vec<_> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_a_loopback_and_its_features_are_read() {
        let loopback = Ethtool::of("lo").unwrap();
        let features = loopback.features().unwrap();
        let (_, loops) = features
            .iter()
            .find(|(name, _)| name == "loopback")
            .unwrap();
        // NETIF_F_LOOPBACK of a loopback is on, and nobody may change it.
        assert_eq!(
            *loops,
            Feature {
                on: true,
                fixed: true
            }
        );
        assert_eq!(
            loopback.channels().unwrap_err().raw_os_error(),
            Some(libc::EOPNOTSUPP)
        );
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        for name in ["nope0", "a-name-that-no-interface-can-have"] {
            let error = Ethtool::of(name).and_then(|one| one.driver()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        }
    }
}
