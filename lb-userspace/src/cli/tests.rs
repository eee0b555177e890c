//! What the command line accepts.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_take_what_the_manual_says() {
    for line in [
        "lb run --config lb.toml",
        "lb run --config lb.toml --log-format json --log-level debug",
        "lb check lb.toml",
        "lb check lb.toml --json",
        "lb status",
        "lb status --instance edge",
        "lb status --socket /tmp/lb.sock --json",
        "lb status --watch",
        "lb status --watch 0.5 --json",
        "lb reload --instance edge",
        "lb reload --config lb.toml",
        "lb detach --instance edge --pin-root /sys/fs/bpf",
        "lb detach --config lb.toml",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "lb",
        "lb run",
        "lb check",
        "lb status --instance Edge",
        "lb status --instance edge --socket /tmp/lb.sock",
        "lb status --config lb.toml --socket /tmp/lb.sock",
        "lb status --watch 0",
        "lb detach --instance edge --config lb.toml",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[tokio::test]
async fn the_socket_follows_the_instance() {
    let socket = async |line: &str| match parse(line).unwrap().command {
        Command::Reload(_) | Command::Run(_) | Command::Check(_) | Command::Detach(_) => {
            unreachable!()
        }
        Command::Status(arguments) => arguments.target.socket().await.unwrap(),
    };
    assert_eq!(socket("lb status").await, PathBuf::from("/run/lb/lb.sock"));
    assert_eq!(
        socket("lb status --instance edge").await,
        PathBuf::from("/run/lb/edge.sock")
    );
    assert_eq!(
        socket("lb status --socket /tmp/x").await,
        PathBuf::from("/tmp/x")
    );

    let file = std::env::temp_dir().join(format!("lb-target-{}.toml", std::process::id()));
    // Also of a file that the agent will refuse: it is asked, so that it notes that.
    let cases = [
        ("", "/run/lb/lb.sock"),
        ("instance = \"edge\"\nnonsense = 1\n", "/run/lb/edge.sock"),
        (
            "instance = \"edge\"\n[agent]\nsocket = \"/tmp/y\"\n[[pool]]\n",
            "/tmp/y",
        ),
    ];
    for (text, wanted) in cases {
        std::fs::write(&file, text).unwrap();
        let line = format!("lb status --config {}", file.display());
        assert_eq!(socket(&line).await, PathBuf::from(wanted), "{text}");
    }
    // What is not TOML may seem to name another agent.
    std::fs::write(&file, "[[broken\ninstance = \"edge\"\n").unwrap();
    let line = format!("lb status --config {}", file.display());
    let Command::Status(arguments) = parse(&line).unwrap().command else {
        unreachable!()
    };
    let error = arguments.target.socket().await.unwrap_err().to_string();
    assert!(
        error.contains(":1:") && error.contains("error: "),
        "{error}"
    );
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn help_says_what_a_manual_would() {
    let mut command = Cli::command();
    let mut pages = vec![command.render_long_help().to_string()];
    pages.extend(
        command
            .get_subcommands_mut()
            .map(|command| command.render_long_help().to_string()),
    );
    for word in [
        "Examples:",
        "Files:",
        "Signals of the agent:",
        "SIGHUP",
        "/run/lb/<instance>.sock",
        "Exit status:",
    ] {
        assert!(pages[0].contains(word), "no {word} in:\n{}", pages[0]);
    }
    assert!(pages.iter().any(|page| page.contains("CAP_PERFMON")));
}

#[test]
fn the_example_in_the_help_can_be_pasted() {
    let mut command = Cli::command();
    // As `lb check --help` builds it: what the command itself is told goes to those below it.
    command.build();
    let check = command.find_subcommand_mut("check").unwrap();
    let page = check.render_long_help().to_string();
    assert!(
        page.contains(include_str!("../../examples/lb.toml").trim_end()),
        "{page}"
    );
}
