//! What has to hold on every kernel, and in which order it is looked at.
//!
//! The checks of a scene go from attaching to detaching and build on each other: the first that fails ends its scene,
//! and what it has left is taken down before the next.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::guest::Guest;
use super::image::Image;
use super::machine::{Machine, Nic};
use super::network::Network;
use super::scene::{Link, Scene};
use super::traffic::{self, Site, World};
use crate::screen::{Colour, Screen};

/// How long the verifier may take for every variant of every program.
const VERIFY: Duration = Duration::from_secs(400);
/// Servers behind the balancer.
const SERVERS: usize = 2;

/// What the guest gets of this build, and where a run's files go.
#[derive(Clone, Debug)]
pub struct Build {
    /// The agent.
    pub agent: PathBuf,
    /// The program that has the kernel verify every variant.
    pub verify: PathBuf,
    /// The archive and the console's text go here.
    pub directory: PathBuf,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Checks that passed.
    pub passed: usize,
    /// Checks that failed.
    pub failed: usize,
}

type Step = (&'static str, fn(&World<'_>) -> Result<()>);

/// The NICs of the guest. A driver that has fewer queue pairs than are in use and one for each processor on top shares
/// them under a lock: with two processors, the NICs of four pairs alone have queues for XDP.
const NICS: [Nic; 6] = [nic(4), nic(4), nic(2), nic(1), nic(1), LOCKED];
/// A NIC on which the guest can't switch its receive offloads off, as XDP wants it.
const LOCKED: Nic = Nic {
    queues: 4,
    locked: true,
};

const SCENES: [Scene; 4] = [
    Scene {
        name: "virtio, one-arm, 4 queue pairs",
        link: Link::Virtio,
        nics: &[0],
    },
    Scene {
        name: "virtio, two-arm, 4 and 2 queue pairs",
        link: Link::Virtio,
        nics: &[1, 2],
    },
    Scene {
        name: "virtio, two-arm, 1 queue pair",
        link: Link::Virtio,
        nics: &[3, 4],
    },
    Scene {
        name: "veth, two-arm",
        link: Link::Veth,
        nics: &[0, 1],
    },
];
const STEPS: [Step; 7] = [
    ("attaches natively", |world| world.attaches()),
    ("60 requests in exact rotation", |world| world.rotation(60)),
    ("a file of 8 MB arrives as it is", |world| world.file()),
    ("iperf3 both ways", |world| world.bulk()),
    ("kill -9 and adoption", |world| world.adoption()),
    ("reload", |world| world.reload()),
    ("detaches", |world| world.detaches()),
];

/// What is looked at in CI.
const QUICK_STEPS: [Step; 3] = [
    ("attaches natively", |world| world.attaches()),
    ("a request to each server", |world| world.rotation(SERVERS)),
    ("detaches", |world| world.detaches()),
];

/// A NIC whose host locks the guest's offloads.
const LOCKED_OFFLOADS: Scene = Scene {
    name: "native mode is refused where the host locks the guest's offloads",
    link: Link::Virtio,
    nics: &[5],
};

/// Where native mode is refused, the command that makes it so, and words of what the agent says.
const REFUSALS: [(Scene, &str, &str); 2] = [
    (LOCKED_OFFLOADS, "true", "leave `ctrl_guest_offloads` of"),
    (
        Scene {
            name: "native mode is refused with an MTU of 9000",
            link: Link::Virtio,
            nics: &[0],
        },
        "/bin/ip link set eth0 mtu 9000",
        "`ip link set dev eth0 mtu 3400`",
    ),
];

const fn nic(queues: usize) -> Nic {
    Nic {
        queues,
        locked: false,
    }
}

/// Boots a kernel and looks at everything, or, `quick`, whether the program loads and serves.
///
/// # Errors
/// Where the network of the run can't be made. What fails in the guest is counted and shown.
pub fn run(image: &Image, build: &Build, quick: bool, screen: Screen) -> Result<Count> {
    let mut checks = Checks {
        kernel: &image.release,
        screen,
        count: Count::default(),
    };
    let network = Network::new(SERVERS)?;
    let site = Site::start(&network)?;
    let (nics, scenes, steps) = if quick {
        (&NICS[..1], &SCENES[..1], &QUICK_STEPS[..])
    } else {
        (&NICS[..], &SCENES[..], &STEPS[..])
    };
    let programs = [build.agent.as_path(), build.verify.as_path()];
    let boot = || Machine::boot(image, &programs, &network, nics, &build.directory);
    let Some(machine) = checks.check("boots", boot) else {
        return Ok(checks.count);
    };
    let verified = checks.check("every program loads, log off and debug", || {
        machine.run_for("verify", VERIFY)
    });
    for line in verified.iter().flat_map(|said| said.lines()) {
        screen.line(screen.paint(Colour::Grey, format_args!("    {line}")));
    }
    for scene in scenes {
        let world = World::new(&machine, &network, &site, scene);
        for (name, step) in steps {
            let name = format!("{}: {name}", scene.name);
            if checks.check(&name, || step(&world)).is_none() {
                let name = format!("{}: what it has left is taken down", scene.name);
                checks.check(&name, || Guest::new(&machine).clear());
                break;
            }
        }
        for line in world.notes() {
            screen.line(screen.paint(Colour::Grey, format_args!("    {line}")));
        }
    }
    for refusal in REFUSALS.iter().filter(|_| !quick) {
        checks.check(refusal.0.name, || refused(&machine, &network, refusal));
    }
    if !quick {
        let name = "`auto` is generic there, and says what that costs";
        checks.check(name, || falls_back(&machine, &network));
    }
    if checks.count.failed > 0 {
        let console = machine.console().display();
        screen.line(format_args!("the guest's console: {console}"));
    }
    Ok(checks.count)
}

/// With `auto`, the program runs in generic mode where the host locks the guest's offloads.
fn falls_back(machine: &Machine, network: &Network) -> Result<()> {
    LOCKED_OFFLOADS.set(machine, network)?;
    let mut config = traffic::config(network, &LOCKED_OFFLOADS);
    "auto".clone_into(&mut config.interfaces[0].1);
    let guest = Guest::new(machine);
    let seen = guest.start(&config).and_then(|()| guest.status());
    guest.clear()?;
    let interface = seen?.interfaces.remove(0);
    let reason = interface.reason.as_deref().unwrap_or_default();
    let costs = |notice: &String| notice.contains("bulk TCP crawls");
    ensure!(
        interface.mode == "generic"
            && reason.contains(REFUSALS[0].2)
            && interface.notices.iter().any(costs),
        "{interface:?}"
    );
    Ok(())
}

/// The agent refuses native mode, and says on which interface and what helps.
fn refused(
    machine: &Machine,
    network: &Network,
    (scene, before, help): &(Scene, &str, &str),
) -> Result<()> {
    scene.set(machine, network)?;
    machine.run(before)?;
    let guest = Guest::new(machine);
    let said = guest.refusal(&traffic::config(network, scene))?;
    let line = said.lines().find(|line| line.contains("native"));
    let line = line.with_context(|| format!("no word of native mode:\n{said}"))?;
    for interface in scene.interfaces() {
        ensure!(line.contains(&interface), "{line}");
    }
    ensure!(said.contains(help), "`{help}` is not in\n{said}");
    ensure!(guest.attached()?.is_empty(), "attached all the same");
    Ok(())
}

struct Checks<'a> {
    kernel: &'a str,
    screen: Screen,
    count: Count,
}

impl Checks<'_> {
    /// Runs a check and prints its line; gives what it gave, or `None` where it failed.
    fn check<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let begun = Instant::now();
        let outcome = work();
        let seconds = begun.elapsed().as_secs_f64();
        let kernel = self.kernel;
        match outcome {
            Ok(value) => {
                self.count.passed += 1;
                let line = format!("{kernel}  {name}: ok, {seconds:.1} s");
                self.screen.line(self.screen.paint(Colour::Green, line));
                Some(value)
            }
            Err(error) => {
                self.count.failed += 1;
                let line = format!("{kernel}  {name}: FAILED, {seconds:.1} s\n{error:#}");
                self.screen.line(self.screen.paint(Colour::Red, line));
                None
            }
        }
    }
}
