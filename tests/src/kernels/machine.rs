//! QEMU with a kernel, and a serial line over which the guest runs commands.
//!
//! Emulated (TCG), for the machines that this runs on have no KVM. The kernel's console goes to a file.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

use super::image::Image;
use super::initramfs;
use super::network::{Network, tap};
use crate::daemon::Daemon;
use crate::scratch::Scratch;

/// What the kernel is told. It must not test its timer: on a busy machine an emulated one is late, and the kernel gives up
/// ("IO-APIC + timer doesn't work!").
const APPEND: &str = "console=ttyS0 panic=-1 net.ifnames=0 no_timer_check";
/// Processors of a guest. A driver that gives XDP queues of its own needs one for each.
pub(super) const CPUS: usize = 2;
/// How long a boot may take: two seconds on an idle machine.
const BOOT: Duration = Duration::from_mins(5);
/// How long a command may take that is not expected to take long.
const PATIENCE: Duration = Duration::from_mins(2);
/// How many lines of the console come with an error.
const CONSOLE_LINES: usize = 15;

/// A virtio NIC of a guest, connected to the host's bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nic {
    /// Queue pairs.
    pub(super) queues: usize,
    /// Whether the host keeps the guest from switching its receive offloads off.
    pub(super) locked: bool,
}

/// A running guest; gone when dropped.
pub(super) struct Machine {
    daemon: Daemon,
    line: Mutex<BufReader<UnixStream>>,
    console: PathBuf,
    _scratch: Scratch,
}

impl Machine {
    /// Boots a kernel with `programs` in its `/bin`, and waits until it runs commands.
    ///
    /// `directory` gets the archive and the console's text.
    ///
    /// # Errors
    /// Where it does not come up, with the end of the console's text.
    pub(super) fn boot(
        image: &Image,
        programs: &[&Path],
        network: &Network,
        nics: &[Nic],
        directory: &Path,
    ) -> Result<Self> {
        let archive = directory.join("initramfs.cpio");
        initramfs::write(image, programs, &archive)?;
        let console = directory.join("console.log");
        fs::write(&console, "").with_context(|| console.display().to_string())?;
        let scratch = Scratch::new("qemu")?;
        let socket = scratch.file("line");

        let mut qemu = network.switch.command("qemu-system-x86_64");
        qemu.args([
            "-machine",
            "q35,accel=tcg,usb=off",
            "-cpu",
            "max",
            "-m",
            "2048",
        ]);
        qemu.args(["-smp", &CPUS.to_string(), "-nodefaults", "-no-user-config"]);
        qemu.args(["-display", "none", "-no-reboot"]);
        qemu.arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&archive);
        qemu.args(["-append", APPEND]);
        qemu.args(["-serial", &format!("file:{}", console.display())]);
        // Not a second serial port of a PC: on a busy machine that one loses bytes.
        let line = format!(
            "socket,id=line,path={},server=on,wait=off",
            socket.display()
        );
        qemu.args(["-chardev", &line, "-device", "virtio-serial-pci"]);
        qemu.args(["-device", "virtserialport,chardev=line"]);
        for (number, nic) in nics.iter().enumerate() {
            network.add_tap(number, nic.queues)?;
            qemu.args(["-netdev", &netdev(number, nic)]);
            qemu.args(["-device", &device(number, nic)]);
        }
        let daemon = Daemon::start(qemu, &scratch.file("qemu.log"))?;
        let stream = daemon.wait_until(BOOT, "opening its serial line", || {
            UnixStream::connect(&socket).context("connecting")
        })?;
        let machine = Self {
            daemon,
            line: Mutex::new(BufReader::new(stream)),
            console,
            _scratch: scratch,
        };
        // The first answer comes unasked.
        machine
            .answer(&mut machine.held(), BOOT)
            .context("booting")?;
        Ok(machine)
    }

    /// What a command says in the guest, on both outputs.
    ///
    /// # Errors
    /// Where it does not exit with 0, or the guest does not answer.
    pub(super) fn run(&self, command: &str) -> Result<String> {
        self.run_for(command, PATIENCE)
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub(super) fn run_for(&self, command: &str, within: Duration) -> Result<String> {
        let (status, said) = self.outcome(command, within)?;
        ensure!(
            status == 0,
            "in the guest, `{command}`: exit status {status}\n{said}"
        );
        Ok(said)
    }

    /// The exit status of a command in the guest and what it said.
    ///
    /// # Errors
    /// Where the guest does not answer.
    pub(super) fn outcome(&self, command: &str, within: Duration) -> Result<(u32, String)> {
        ensure!(!command.contains('\n'), "a command is one line: {command}");
        let mut line = self.held();
        let sent = line.get_mut().write_all(format!("{command}\n").as_bytes());
        sent.with_context(|| self.last_words("sending a command"))?;
        let answered = self.answer(&mut line, within);
        answered.with_context(|| format!("in the guest, `{command}`"))
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub(super) fn write(&self, path: &str, content: &str) -> Result<()> {
        // A line each, for the shell's sake as much as for the serial line's.
        self.run(&format!(": > {path}"))?;
        for line in content.lines() {
            ensure!(!line.contains('\''), "a quote in {line}");
            self.run(&format!("echo '{line}' >> {path}"))?;
        }
        Ok(())
    }

    /// Where the console's text is.
    #[must_use]
    pub(super) fn console(&self) -> &Path {
        &self.console
    }

    /// Reads up to the line that ends an answer.
    fn answer(&self, line: &mut BufReader<UnixStream>, within: Duration) -> Result<(u32, String)> {
        const TURN: Duration = Duration::from_millis(200);
        let deadline = Instant::now() + within;
        line.get_ref().set_read_timeout(Some(TURN))?;
        let mut said = Vec::new();
        loop {
            match line.read_until(b'\n', &mut said) {
                Ok(0) => bail!(self.last_words("the guest is gone")),
                Ok(_) => {
                    if let Some(answer) = ended(&said) {
                        return Ok(answer);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Error::from(error).context("reading the serial line")),
            }
            if let Some(status) = self.daemon.ended()? {
                bail!(
                    self.last_words(&format!("QEMU has ended: {status}\n{}", self.daemon.log()?))
                );
            }
            if Instant::now() >= deadline {
                let said = String::from_utf8_lossy(&said);
                bail!(self.last_words(&format!("no answer in {within:?}; so far: {said}")));
            }
        }
    }

    /// An error with the end of the console's text.
    fn last_words(&self, what: &str) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n    ");
        format!("{what}\n{} ends in\n    {end}", self.console.display())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BufReader<UnixStream>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exit status and the text, where the last line is one that ends an answer.
fn ended(said: &[u8]) -> Option<(u32, String)> {
    let text = String::from_utf8_lossy(said);
    let (before, last) = text.trim_end_matches('\n').rsplit_once('\n')?;
    let status = last.strip_prefix("@@ ")?.trim().parse().ok()?;
    Some((status, before.trim().to_owned()))
}

fn netdev(number: usize, nic: &Nic) -> String {
    let queues = match nic.queues {
        1 => String::new(),
        queues => format!(",queues={queues}"),
    };
    let tap = tap(number);
    format!("tap,id=n{number},ifname={tap},script=no,downscript=no,vhost=off{queues}")
}

fn device(number: usize, nic: &Nic) -> String {
    let several = if nic.queues > 1 {
        format!(",mq=on,vectors={}", 2 * nic.queues + 2)
    } else {
        String::new()
    };
    let locked = if nic.locked {
        ",ctrl_guest_offloads=off"
    } else {
        ""
    };
    let mac = mac(number);
    format!("virtio-net-pci,netdev=n{number},romfile=,mac={mac}{several}{locked}")
}

/// The MAC address of a NIC.
fn mac(number: usize) -> String {
    format!("52:54:00:00:01:{number:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_status() {
        assert_eq!(ended(b"a\nb\n"), None);
        assert_eq!(ended(b"\n@@ 0\n"), Some((0, String::new())));
        assert_eq!(ended(b"a\nb\n\n@@ 127\n"), Some((127, "a\nb".to_owned())));
        assert_eq!(ended(b"a\n@@ 1"), Some((1, "a".to_owned())));
        assert_eq!(ended(b"a\n@@ x\n"), None);
    }

    #[test]
    fn a_nic_is_described_as_qemu_takes_it() {
        let (one, four) = (1, 4);
        let nic = Nic {
            queues: four,
            locked: false,
        };
        assert!(device(3, &nic).ends_with("mac=52:54:00:00:01:03,mq=on,vectors=10"));
        assert!(netdev(3, &nic).ends_with(",queues=4"));
        let nic = Nic {
            queues: one,
            locked: true,
        };
        assert!(device(0, &nic).ends_with(":00,ctrl_guest_offloads=off"));
        assert!(netdev(0, &nic).ends_with("vhost=off"));
    }
}
