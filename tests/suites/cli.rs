//! The command line against a running agent: what an operator types and reads.

use anyhow::{Result, ensure};
use lb_tests::agent::config::{Check, Pool, Service};
use lb_tests::agent::{Config, binary};
use lb_tests::command;
use lb_tests::poll::{self, SOON};
use lb_tests::topology::{Arms, Topology};
use lb_tests::web::Web;

#[test]
fn status_shows_services_backends_states_and_counts() -> Result<()> {
    let web = Web::start(Topology::new(Arms::Two, 2)?, Some(Check::http()))?;
    assert_eq!(web.client().sequence(10)?.len(), 10);
    web.servers[1].kill()?;
    web.agent.wait_for_state("www", "web1", "down")?;
    let words = [
        "www",
        "10.1.0.100:80",
        "round-robin",
        "nat",
        "web0",
        "up",
        "web1",
        "down",
        "refused",
        "front",
        "native",
    ];
    // The reason is that of the last check; one that was under way when the server died has another.
    let table = poll::until(SOON, "the whole table", || {
        let table = said(&web, &["status"])?;
        for word in words {
            ensure!(table.contains(word), "no `{word}` in\n{table}");
        }
        Ok(table)
    })?;
    ensure!(
        !table.contains('\u{1b}'),
        "colours where nobody looks:\n{table:?}"
    );
    Ok(())
}

#[test]
fn status_as_json_is_the_report() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 2)?, None)?;
    let status = web.agent.status()?;
    ensure!(
        status.agent.ready && !status.agent.adopted,
        "{:#?}",
        status.agent
    );
    assert_eq!(status.services.len(), 1);
    let names: Vec<_> = status.services[0]
        .backends
        .iter()
        .map(|row| row.name.as_str())
        .collect();
    assert_eq!(names, ["web0", "web1"]);
    let program = status
        .program
        .ok_or_else(|| anyhow::anyhow!("no program"))?;
    ensure!(
        program.verified_instructions > 0 && program.log == "off",
        "{program:?}"
    );
    Ok(())
}

#[test]
fn reload_prints_what_it_changed() -> Result<()> {
    let topology = Topology::new(Arms::Two, 2)?;
    let config = Config::web(&topology, None);
    let web = Web::with_config(topology, &config)?;
    let more = config
        .pool(Pool::new("more", &web.topology.backends, 81))
        .service(Service::tcp("shop", 81, "more"));
    web.agent.write(&more)?;
    let answer = said(&web, &["reload"])?;
    ensure!(answer.contains("shop"), "{answer}");
    ensure!(web.agent.status()?.services.len() == 2, "not in force");
    Ok(())
}

#[test]
fn help_names_every_command() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    let output = web.agent.lb(&["--help"])?;
    let help = command::said(&output);
    for word in ["run", "check", "status", "reload", "detach"] {
        ensure!(help.contains(word), "no `{word}` in\n{help}");
    }
    let wrong = web.agent.lb(&["frobnicate"])?;
    ensure!(wrong.status.code() == Some(2), "{}", wrong.status);
    Ok(())
}

#[test]
fn what_the_program_is_told_to_log_is_seen_at_the_agents_usual_level() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = Config::web(&topology, None);
    config.data_plane_log = Some("debug".to_owned());
    let web = Web::with_config(topology, &config)?;
    assert_eq!(web.client().sequence(1)?.len(), 1);
    poll::until(SOON, "the flow in the log", || {
        let events = web.agent.events()?;
        let flow = events
            .iter()
            .find(|event| event.message().starts_with("flow 10.1.0.10:"));
        ensure!(flow.is_some(), "{} events", events.len());
        Ok(())
    })
}

#[test]
fn the_programs_log_names_the_reason_of_every_drop() -> Result<()> {
    let topology = Topology::new(Arms::Two, 1)?;
    let mut config = Config::web(&topology, None);
    config = config.service(Service::udp("log", 5_140, "web"));
    config.data_plane_log = Some("info".to_owned());
    let web = Web::with_config(topology, &config)?;
    let client = &web.topology.client.netns;
    // Datagrams in two fragments, which are not followed.
    let socket = client.run(|| std::net::UdpSocket::bind("10.1.0.10:4000"))??;
    let wanted = "dropped 10.1.0.10:4000 -> 10.1.0.100:5140 protocol 17: fragment";
    poll::until(SOON, "the drop in the log", || {
        socket.send_to(&[7; 2_000], "10.1.0.100:5140")?;
        let events = web.agent.events()?;
        let messages: Vec<_> = events
            .iter()
            .map(lb_tests::agent::Event::message)
            .filter(|message| message.starts_with("dropped"))
            .collect();
        ensure!(messages.contains(&wanted), "{messages:?}");
        Ok(())
    })
}

#[test]
fn a_pipe_that_nobody_reads_ends_every_command_quietly() -> Result<()> {
    let web = Web::start(Topology::new(Arms::One, 1)?, None)?;
    let scratch = web.agent.scratch();
    let bad = scratch
        .write("bad.toml", "instance = 7\n")?
        .display()
        .to_string();
    let good = web.agent.config_file().display().to_string();
    let socket = web.agent.socket().display().to_string();
    // A pool that no service uses: `reload` and `check` have something to say to the standard error as well.
    let spare = "[[pool]]\nname = \"spare\"\n[[pool.backend]]\naddress = \"10.9.9.9:80\"\n";
    web.agent
        .write_text(&format!("{}{spare}", web.agent.text()?))?;
    let cases: [(&[&str], i32); 14] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&["check", "--help"], 0),
        (&["frobnicate"], 2),
        (&["check", &good], 0),
        (&["check", &bad], 1),
        (&["check", "--json", &bad], 1),
        (&["status", "--socket", &socket], 0),
        (&["status", "--watch", "--socket", &socket], 0),
        (&["status", "--json", "--watch", "--socket", &socket], 0),
        (&["status", "--socket", "/nowhere"], 1),
        (&["reload", "--socket", &socket], 0),
        (&["detach", "--config", &bad], 1),
        (&["run", "--config", &bad], 1),
    ];
    for (arguments, code) in cases {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = web.agent.netns().command(binary()?);
        command
            .args(arguments)
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let status = command.status()?;
        ensure!(status.code() == Some(code), "{arguments:?}: {status}");
    }
    Ok(())
}

/// What `lb` says, given the socket too.
fn said(web: &Web, arguments: &[&str]) -> Result<String> {
    let socket = web.agent.socket().display().to_string();
    let output = web
        .agent
        .lb(&[arguments, &["--socket", &socket]].concat())?;
    let words = command::said(&output);
    ensure!(output.status.success(), "{}\n{words}", output.status);
    Ok(words)
}
