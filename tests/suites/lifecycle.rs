//! The life of the agent when somebody meddles with it: pins, links, sockets and ports that go, a configuration that never
//! ends, signals at any moment.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::agent::config::{Check, METRICS};
use lb_tests::agent::{Agent, Config, SOON};
use lb_tests::echo::Listener;
use lb_tests::http;
use lb_tests::http::load::Load;
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;
use lb_tests::{command, kernel, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;

/// What a stop may take at a moment at which nothing is to be detached that takes time.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn pins_that_are_removed_by_hand_cost_no_request_and_come_back() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    let load = Load::constant(&web.client(), 200);
    let before = web.agent.scratch().pins()?;
    let links = kernel::links_pinned_in(&web.agent.scratch().bpffs())?;
    let directory = web.agent.scratch().bpffs().join("lb/lb");
    let all = ["FLOWS", "link-front"].map(|name| directory.join(name));
    for path in all.into_iter().chain([directory]) {
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
        poll::until(SOON, format!("{} to be back", path.display()), || {
            let now = web.agent.scratch().pins()?;
            ensure!(now == before, "{now:?}");
            Ok(())
        })?;
    }
    let kept = kernel::links_pinned_in(&web.agent.scratch().bpffs())?;
    assert_eq!(kept, links, "the very links");
    let status = web.agent.status()?;
    ensure!(status.agent.ready, "{:#?}", status.agent);
    unharmed(load)?;

    // What was pinned again is a data plane to adopt.
    web.agent.kill()?;
    web.agent.launch()?;
    ensure!(web.agent.status()?.agent.adopted, "it was not adopted");
    ensure!(web.agent.terminate()?.success(), "SIGTERM");
    nothing_left(&web)
}

#[test]
fn a_bpffs_that_is_unmounted_is_told_and_used_again_when_it_is_back() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    let load = Load::constant(&web.client(), 200);
    let bpffs = web.agent.scratch().bpffs();
    // Its directory is in use, so that it goes like this or not at all.
    unmount(&bpffs, UnmountFlags::DETACH)?;
    let status = poll::until(SOON, "an agent that is not ready", || {
        let status = web.agent.status()?;
        ensure!(!status.agent.ready, "{:#?}", status.agent);
        Ok(status)
    })?;
    let reasons = status.agent.not_ready.join("\n");
    ensure!(
        reasons.contains("FLOWS") && reasons.contains("mount -t bpf"),
        "{reasons}"
    );
    let page = web.agent.http("/readyz")?;
    ensure!(
        page.status == 503 && page.body.contains("mount -t bpf"),
        "{page:?}"
    );
    let mut config = Config::web(&web.topology, None);
    config.pools[0].backends[1].weight = 0;
    web.agent.reload(&config)?;
    mount("bpf", &bpffs, "bpf", MountFlags::empty(), c"mode=0700")?;
    poll::until(SOON, "an agent that is ready again", || {
        let status = web.agent.status()?;
        ensure!(status.agent.ready, "{:#?}", status.agent);
        Ok(())
    })?;
    unharmed(load)?;
    ensure!(web.agent.terminate()?.success(), "SIGTERM");
    nothing_left(&web)
}

#[test]
fn a_stop_without_any_pin_detaches_all_the_same() -> Result<()> {
    let mut web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    let bpffs = web.agent.scratch().bpffs();
    unmount(&bpffs, UnmountFlags::DETACH)?;
    let ended = web.agent.terminate()?;
    mount("bpf", &bpffs, "bpf", MountFlags::empty(), c"mode=0700")?;
    ensure!(ended.success(), "{ended}");
    nothing_left(&web)
}

#[test]
fn a_link_that_is_detached_by_hand_is_made_again_without_waiting_for_the_next_check() -> Result<()>
{
    let web = Web::start(Topology::new(Arms::Two, 2)?, None)?;
    let bpffs = web.agent.scratch().bpffs();
    let link = kernel::links_pinned_in(&bpffs)?;
    let link = link.first().context("no link is pinned")?;
    let client = web.client().patience(Duration::from_millis(100));
    client.get("/")?;
    let began = Instant::now();
    command::line(&format!("bpftool link detach id {}", link.id))?;
    poll::until(SOON, "an answer", || client.get("/").map(drop))?;
    let outage = began.elapsed();
    // The checks of a running agent alone would take up to 30 s.
    ensure!(outage < Duration::from_secs(5), "{outage:?}");
    let kept = kernel::links_pinned_in(&bpffs)?;
    ensure!(
        kept.iter().all(|kept| kept.id != link.id),
        "the old link: {kept:?}"
    );
    eprintln!("an answer {outage:?} after the link was detached");
    Ok(())
}

#[test]
fn a_balancer_without_a_living_backend_is_not_ready() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 2)?, Some(Check::tcp()))?;
    ensure!(web.agent.http("/readyz")?.status == 200, "two are up");
    web.servers[0].kill()?;
    web.agent.wait_for_state("www", "web0", "down")?;
    ensure!(web.agent.http("/readyz")?.status == 200, "one is up");
    web.servers[1].kill()?;
    let page = poll::until(SOON, "503", || {
        let page = web.agent.http("/readyz")?;
        ensure!(page.status == 503, "{page:?}");
        Ok(page)
    })?;
    ensure!(
        page.body.contains("no service has its VIP and a backend"),
        "{page:?}"
    );
    ensure!(web.agent.http("/healthz")?.status == 200, "it is alive");
    let metrics = web.agent.http("/metrics")?.body;
    ensure!(metrics.contains("\nlb_ready 0\n"), "{metrics}");
    Ok(())
}

#[test]
fn a_configuration_that_never_ends_holds_up_no_start_and_no_stop() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    endless(&agent)?;
    agent.begin()?;
    let pid = agent.pid()?;
    // Signals are taken before the file is read.
    poll::until(SOON, "SIGHUP to be taken", || {
        let caught = caught(pid)?;
        ensure!(caught & 1 != 0, "it catches {caught:x}");
        Ok(())
    })?;
    agent.signal(Signal::HUP)?;
    poll::throughout(Duration::from_millis(300), "it lives", || {
        agent.check_alive()
    })?;
    let asked = Instant::now();
    ensure!(agent.terminate()?.success(), "SIGTERM");
    ensure!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    let failure = agent.run_to_failure()?;
    ensure!(failure.said.contains("no end after"), "{}", failure.said);
    Ok(())
}

#[test]
fn a_reload_of_a_configuration_that_never_ends_is_refused_and_a_stop_does_not_wait_for_it()
-> Result<()> {
    let mut web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    let good = web.agent.text()?;
    fs::remove_file(web.agent.config_file())?;
    endless(&web.agent)?;
    let socket = web.agent.socket().display().to_string();
    let output = web.agent.lb(&["reload", "--socket", &socket])?;
    let words = command::said(&output);
    ensure!(
        output.status.code() == Some(1) && words.contains("no end after"),
        "{words}"
    );
    fs::remove_file(web.agent.config_file())?;
    web.agent.write_text(&good)?;
    let output = web.agent.lb(&["reload", "--socket", &socket])?;
    ensure!(output.status.success(), "{}", command::said(&output));

    fs::remove_file(web.agent.config_file())?;
    endless(&web.agent)?;
    web.agent.signal(Signal::HUP)?;
    web.agent
        .wait_for_event(SOON, "reload", SystemTime::UNIX_EPOCH, |event| {
            event.field("event") == "reload"
        })?;
    let asked = Instant::now();
    ensure!(web.agent.terminate()?.success(), "SIGTERM");
    ensure!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    nothing_left(&web)
}

#[test]
fn a_stop_while_the_program_is_verified_takes_effect_at_once() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut agent = Agent::prepare(&topology.balancer.netns, &Config::web(&topology, None))?;
    let bpffs = agent.scratch().bpffs();
    for stage in ["starting", "FLOWS"] {
        agent.begin()?;
        poll::until(SOON, stage, || {
            let pinned = bpffs.join("lb/lb").join(stage).exists();
            ensure!(pinned || agent.log()?.contains(stage), "not yet");
            Ok(())
        })?;
        let asked = Instant::now();
        let ended = agent.terminate()?;
        ensure!(ended.success(), "{stage}: {ended}");
        ensure!(asked.elapsed() < AT_ONCE, "{stage}: {:?}", asked.elapsed());
        let pins = agent.scratch().pins()?;
        ensure!(pins.is_empty(), "{stage}: pins stay: {pins:?}");
        let said = agent.log()?;
        ensure!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[test]
fn a_flow_table_of_another_size_is_refused_with_a_value_that_helps() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let mut config = Config::web(&topology, None);
    config.flow_entries = Some(5_000);
    let mut agent = Agent::start(&topology.balancer.netns, &config)?;
    agent.kill()?;
    config.flow_entries = Some(100_000);
    agent.write(&config)?;
    let said = agent.run_to_failure()?.said;
    let advice = said.split("set flow_entries = ").nth(1);
    let advice = advice.with_context(|| said.clone())?;
    let value: String = advice.chars().take_while(char::is_ascii_digit).collect();
    ensure!(said.contains("flow_entries = 100000"), "{said}");
    config.flow_entries = Some(value.parse()?);
    agent.write(&config)?;
    agent.launch()?;
    ensure!(agent.status()?.agent.adopted, "nothing was adopted");
    Ok(())
}

#[test]
fn a_metrics_port_that_is_taken_is_served_when_it_is_free() -> Result<()> {
    let topology = Topology::new(Arms::One, 1)?;
    let address = METRICS.parse::<std::net::SocketAddr>()?;
    let taken = Listener::start(&topology.balancer.netns, address)?;
    let mut web = Web::start(topology, None)?;
    let problem = web.agent.status()?.agent.problems.remove("metrics");
    let problem = problem.context("the status says nothing")?;
    ensure!(
        problem.contains(METRICS) && problem.contains("help: "),
        "{problem}"
    );
    ensure!(web.client().get("/")?.status == 200, "traffic");
    drop(taken);
    poll::until(Duration::from_mins(1), "the metrics", || {
        let page = web.agent.http("/readyz")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(())
    })?;
    poll::until(SOON, "no problem", || {
        let problems = web.agent.status()?.agent.problems;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    })?;
    ensure!(web.agent.terminate()?.success(), "SIGTERM");
    Ok(())
}

#[test]
fn a_socket_that_is_removed_is_made_again() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    fs::remove_file(web.agent.socket())?;
    poll::until(SOON, "an answer", || web.agent.status().map(drop))
}

#[test]
fn a_reload_prints_the_warnings_of_the_file() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    let more = "[[pool]]\nname = \"spare\"\n[[pool.backend]]\naddress = \"10.2.0.99:80\"\n";
    web.agent
        .write_text(&format!("{}\n{more}", web.agent.text()?))?;
    let socket = web.agent.socket().display().to_string();
    let output = web.agent.lb(&["reload", "--socket", &socket])?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words}");
    ensure!(
        words.contains("warning") && words.contains("spare"),
        "{words}"
    );
    Ok(())
}

/// Makes the agent's configuration a FIFO that nobody writes to.
fn endless(agent: &Agent) -> Result<()> {
    let path = agent.config_file();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!(error),
        _ => {}
    }
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    Ok(())
}

/// The signals that a process catches: bit 0 is SIGHUP.
fn caught(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    Ok(u64::from_str_radix(mask.context("no SigCgt")?.trim(), 16)?)
}

/// The load goes on for 100 requests, and none failed.
fn unharmed(load: Load) -> Result<()> {
    let from = SystemTime::now();
    poll::until(SOON, "100 requests", || {
        let ended = load.since(from).len();
        ensure!(ended >= 100, "{ended} ended");
        Ok(())
    })?;
    let failures = http::failures(&load.stop()?);
    ensure!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

/// No pin, and no program on any interface.
fn nothing_left(web: &Web) -> Result<()> {
    let pins = web.agent.scratch().pins()?;
    ensure!(pins.is_empty(), "pins stay: {pins:?}");
    for name in web.topology.balancer_interfaces() {
        let interface = web.topology.balancer.interface(name);
        poll::until(
            SOON,
            format!("{name} without a program"),
            || match interface.xdp()? {
                None => Ok(()),
                Some(xdp) => bail!("{xdp}"),
            },
        )?;
    }
    Ok(())
}
