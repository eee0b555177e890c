//! The kernel's ICMP redirects, switched off while one interface carries clients and servers.
//!
//! A kernel that forwards tells whoever is on the interface that a packet came from and leaves by to take the shorter
//! way: servers would answer a client past the balancer, for 300 s each time. It does so where `send_redirects` of `all`
//! or of the interface is on, so both are switched off. What they were is kept as a symbolic link beside the pins, so it
//! lasts as long as the data plane, over the agent's death too; and in memory, because pins may be removed by hand.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::pins::Pins;

/// Parameters of IPv4 by interface, those of the network namespace of the thread that looks.
const PARAMETERS: &str = "/proc/sys/net/ipv4/conf";
/// The link beside the pins.
const RECORD: &str = "send_redirects";
/// Of all interfaces together.
const ALL: &str = "all";

/// Why redirects can't be switched.
#[derive(Debug, thiserror::Error)]
pub enum RedirectsError {
    /// A parameter can't be read or written.
    #[error("can't {action} {path}: {cause}; help: `{command}`", path = .path.display())]
    Parameter {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
        /// What does it by hand.
        command: String,
    },
    /// What the parameters were can't be kept.
    #[error("can't {action} {path}: {cause}", path = .path.display())]
    Record {
        /// What was tried.
        action: &'static str,
        /// The link.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
}

/// What was on before the agent switched it off.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    interface: String,
    all: bool,
    own: bool,
}

impl Record {
    /// `eth0 all=1 own=0`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let interface = words.next()?.to_owned();
        let (all, own) = (words.next()?.strip_prefix("all=")?, words.next()?);
        let own = own.strip_prefix("own=")?;
        Some(Self {
            interface,
            all: all == "1",
            own: own == "1",
        })
    }

    fn text(&self) -> String {
        let (all, own) = (u8::from(self.all), u8::from(self.own));
        format!("{} all={all} own={own}", self.interface)
    }
}

/// The parameters, and the memory of what they were.
#[derive(Debug)]
pub(super) struct Redirects {
    parameters: PathBuf,
    record: PathBuf,
    /// What the record said when it was last there.
    kept: Option<Record>,
}

impl Redirects {
    pub(super) fn of(pins: &Pins) -> Self {
        let mut redirects = Self {
            parameters: PARAMETERS.into(),
            record: pins.directory().join(RECORD),
            kept: None,
        };
        // What can't be read is told where it is needed.
        drop(redirects.read_record());
        redirects
    }

    /// The name of the record, where somebody has removed it.
    pub(super) fn loss(&self) -> Option<&'static str> {
        let lost = self.kept.is_some() && !self.record.is_symlink();
        lost.then_some(RECORD)
    }

    /// Writes the record again where somebody has removed it.
    pub(super) fn keep(&mut self) -> Result<(), RedirectsError> {
        match self.kept.clone() {
            Some(record) if self.loss().is_some() => self.write_record(record),
            _ => Ok(()),
        }
    }

    /// Switches redirects out of `interface` off, and back to what they were out of any other; gives whether it changed
    /// anything.
    pub(super) fn quiet(&mut self, interface: Option<&str>) -> Result<bool, RedirectsError> {
        let before = self.read_record()?;
        let Some(interface) = interface else {
            return self.restore();
        };
        let before = match before {
            Some(record) if record.interface != interface => {
                self.restore()?;
                None
            }
            before => before,
        };
        let (all, own) = (
            self.is_on(ALL, interface)?,
            self.is_on(interface, interface)?,
        );
        if !all && !own {
            return Ok(false);
        }
        // Written first: whoever is killed in between leaves a record of what still is so.
        self.write_record(Record {
            interface: interface.to_owned(),
            all: all || before.as_ref().is_some_and(|before| before.all),
            own: own || before.as_ref().is_some_and(|before| before.own),
        })?;
        for scope in [ALL, interface] {
            if let Err(error) = self.set(scope, interface, false) {
                self.restore()?;
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Makes the parameters what they were; gives whether there was anything to do.
    pub(super) fn restore(&mut self) -> Result<bool, RedirectsError> {
        let Some(Record {
            interface,
            all,
            own,
        }) = self.read_record()?
        else {
            return Ok(false);
        };
        for (scope, was) in [(ALL, all), (interface.as_str(), own)] {
            // An interface that is gone took its parameters along.
            if was && self.path(scope).exists() && !self.is_on(scope, &interface)? {
                self.set(scope, &interface, true)?;
            }
        }
        self.remove_record()?;
        Ok(true)
    }

    fn path(&self, scope: &str) -> PathBuf {
        self.parameters.join(scope).join("send_redirects")
    }

    fn is_on(&self, scope: &str, interface: &str) -> Result<bool, RedirectsError> {
        let path = self.path(scope);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim() != "0"),
            Err(cause) => Err(failed("read", path, cause, interface, false)),
        }
    }

    fn set(&self, scope: &str, interface: &str, on: bool) -> Result<(), RedirectsError> {
        let path = self.path(scope);
        fs::write(&path, if on { "1" } else { "0" })
            .map_err(|cause| failed("write", path, cause, interface, on))
    }

    fn read_record(&mut self) -> Result<Option<Record>, RedirectsError> {
        match fs::read_link(&self.record) {
            Ok(text) => self.kept = Record::parse(&text.to_string_lossy()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(self.record_failed("read", cause)),
        }
        Ok(self.kept.clone())
    }

    fn write_record(&mut self, record: Record) -> Result<(), RedirectsError> {
        self.remove_record()?;
        symlink(Path::new(&record.text()), &self.record)
            .map_err(|cause| self.record_failed("make", cause))?;
        self.kept = Some(record);
        Ok(())
    }

    fn remove_record(&mut self) -> Result<(), RedirectsError> {
        match fs::remove_file(&self.record) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(self.record_failed("remove", cause))
            }
            _ => {
                self.kept = None;
                Ok(())
            }
        }
    }

    fn record_failed(&self, action: &'static str, cause: io::Error) -> RedirectsError {
        RedirectsError::Record {
            action,
            path: self.record.clone(),
            cause,
        }
    }
}

fn failed(
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
    interface: &str,
    on: bool,
) -> RedirectsError {
    // With slashes, because a name may have a dot.
    let value = u8::from(on);
    let command = format!(
        "sysctl -w net/ipv4/conf/all/send_redirects={value} net/ipv4/conf/{interface}/send_redirects={value}"
    );
    RedirectsError::Parameter {
        action,
        path,
        cause,
        command,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Parameters of two interfaces, and a directory for the record.
    struct Host(PathBuf);

    impl Host {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("lb-redirects-{}-{number}", std::process::id());
            let host = Self(std::env::temp_dir().join(name));
            for (scope, value) in [("all", 1), ("eth0", 1), ("eth1", 0)] {
                fs::create_dir_all(host.0.join(scope)).unwrap();
                host.set(scope, value);
            }
            host
        }

        fn redirects(&self) -> Redirects {
            Redirects {
                parameters: self.0.clone(),
                record: self.0.join(RECORD),
                kept: None,
            }
        }

        fn set(&self, scope: &str, value: u8) {
            fs::write(self.redirects().path(scope), value.to_string()).unwrap();
        }

        fn values(&self) -> [String; 3] {
            ["all", "eth0", "eth1"].map(|scope| {
                let text = fs::read_to_string(self.redirects().path(scope)).unwrap_or_default();
                text.trim().to_owned()
            })
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn both_parameters_go_off_and_come_back_by_another_process() {
        let host = Host::new();
        assert!(host.redirects().quiet(Some("eth0")).unwrap());
        assert_eq!(host.values(), ["0", "0", "0"]);
        assert!(!host.redirects().quiet(Some("eth0")).unwrap());
        assert!(host.redirects().restore().unwrap());
        assert_eq!(host.values(), ["1", "1", "0"]);
        assert!(!host.redirects().restore().unwrap());
        assert!(!host.0.join(RECORD).is_symlink());
    }

    #[test]
    fn what_was_off_stays_off() {
        let host = Host::new();
        host.set("all", 0);
        host.redirects().quiet(Some("eth0")).unwrap();
        host.redirects().restore().unwrap();
        assert_eq!(host.values(), ["0", "1", "0"]);
        host.set("eth0", 0);
        assert!(!host.redirects().quiet(Some("eth0")).unwrap());
        assert!(!host.0.join(RECORD).is_symlink(), "nothing was changed");
    }

    #[test]
    fn what_somebody_switches_on_meanwhile_goes_off_again_and_comes_back_at_the_end() {
        let host = Host::new();
        host.set("all", 0);
        host.redirects().quiet(Some("eth0")).unwrap();
        host.set("all", 1);
        assert!(host.redirects().quiet(Some("eth0")).unwrap());
        assert_eq!(host.values(), ["0", "0", "0"]);
        host.redirects().restore().unwrap();
        assert_eq!(host.values(), ["1", "1", "0"]);
    }

    #[test]
    fn another_interface_or_none_brings_the_first_back() {
        let host = Host::new();
        host.redirects().quiet(Some("eth0")).unwrap();
        host.redirects().quiet(Some("eth1")).unwrap();
        assert_eq!(host.values(), ["0", "1", "0"]);
        assert!(host.redirects().quiet(None).unwrap());
        assert_eq!(host.values(), ["1", "1", "0"]);
        host.redirects().quiet(Some("eth0")).unwrap();
        fs::remove_dir_all(host.0.join("eth0")).unwrap();
        host.redirects().restore().unwrap();
        assert_eq!(host.values(), ["1", "", "0"], "an interface that is gone");
    }

    #[test]
    fn what_can_not_be_written_comes_with_the_command_and_leaves_all_as_it_was() {
        let host = Host::new();
        // A directory in the place of the file: readable by nobody as a value.
        fs::remove_file(host.redirects().path("eth0")).unwrap();
        fs::create_dir(host.redirects().path("eth0")).unwrap();
        let error = host.redirects().quiet(Some("eth0")).unwrap_err();
        let command =
            "`sysctl -w net/ipv4/conf/all/send_redirects=0 net/ipv4/conf/eth0/send_redirects=0`";
        assert!(error.to_string().contains(command), "{error}");
        assert_eq!(host.values(), ["1", "", "0"]);
        assert!(!host.0.join(RECORD).is_symlink());
    }

    #[test]
    fn a_record_that_somebody_removes_is_not_forgotten() {
        let host = Host::new();
        let mut redirects = host.redirects();
        assert_eq!(redirects.loss(), None, "there is none yet");
        redirects.quiet(Some("eth0")).unwrap();
        assert_eq!(redirects.loss(), None);
        fs::remove_file(host.0.join(RECORD)).unwrap();
        assert_eq!(redirects.loss(), Some("send_redirects"));
        redirects.keep().unwrap();
        assert_eq!(redirects.loss(), None);
        let mut next = host.redirects();
        assert!(next.restore().unwrap(), "as the next process reads it");
        host.set("all", 0);
        host.set("eth0", 0);

        // Or nobody has kept it again before the end.
        host.set("eth0", 1);
        redirects.quiet(Some("eth0")).unwrap();
        fs::remove_file(host.0.join(RECORD)).unwrap();
        assert!(redirects.restore().unwrap());
        assert_eq!(host.values()[1], "1");
        assert!(!redirects.restore().unwrap());
        assert_eq!(redirects.loss(), None, "what was given back is no loss");
    }

    #[test]
    fn a_record_is_what_was_written() {
        let record = Record {
            interface: "eth0.100".to_owned(),
            all: true,
            own: false,
        };
        assert_eq!(Record::parse(&record.text()), Some(record));
        assert_eq!(Record::parse("eth0"), None);
    }
}
