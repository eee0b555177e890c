//! Reloads and the end, with a core that writes down what it is told.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::sleep,
};

use super::*;
use crate::{config, core::message::Message};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file that goes with the value.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lb-agent-{}-{count}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// What a core was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Reload(Box<Model>),
    Refused(String),
    Problem(Option<String>),
    Shutdown,
}

/// An agent that runs the configuration in `file`, whose core answers reloads by `reply`.
fn agent(
    file: &File,
    reply: ReloadReply,
    left: Result<(), Vec<String>>,
) -> (Agent, mpsc::Receiver<Told>) {
    let (sender, mut messages) = mpsc::channel(8);
    let (teller, told) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            let word = match message {
                Message::Reload {
                    model,
                    reply: answer,
                } => {
                    answer.send(reply.clone()).unwrap();
                    Told::Reload(model)
                }
                Message::ConfigRefused { reason } => Told::Refused(reason),
                Message::Shutdown { reply: answer } => {
                    answer.send(left.clone()).unwrap();
                    Told::Shutdown
                }
                Message::Ping { reply: answer } => {
                    answer.send(()).unwrap();
                    continue;
                }
                Message::Problem { problem, .. } => Told::Problem(problem),
                Message::Status { .. } => continue,
            };
            teller.send(word).await.unwrap();
        }
    });
    let model = config::load(file.path()).unwrap().model;
    let agent = Agent::new(
        file.path().to_owned(),
        model,
        Handle(sender),
        Metrics::new().unwrap(),
    );
    (agent, told)
}

fn text(metrics: Option<SocketAddr>, port: u32) -> String {
    let metrics = metrics.map_or_else(String::new, |address| {
        format!("[metrics]\nlisten = \"{address}\"\n")
    });
    format!(
        "{metrics}[[interface]]\nname = \"eth0\"\n[[pool]]\nname = \"web\"\n[[pool.backend]]\n\
         address = \"10.0.0.1:{port}\"\n[[service]]\nname = \"www\"\naddress = \"192.0.2.1:80\"\n\
         protocol = \"tcp\"\npool = \"web\"\n"
    )
}

fn applied(lines: &[&str]) -> Applied {
    Applied {
        applied: lines.iter().map(|line| (*line).to_owned()).collect(),
        warnings: Vec::new(),
    }
}

/// Has the agent listen, and waits until somebody does.
async fn listening(agent: &mut Agent, address: SocketAddr) {
    agent.listen();
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, listening).await.expect("it listens");
}

/// An address that was free a moment ago.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_changed_file_is_applied() {
    let file = File::new(&text(None, 80));
    let moved = applied(&["backend moved"]);
    let (mut agent, mut told) = agent(&file, Ok(moved.clone()), Ok(()));
    file.write(&text(None, 81));
    assert_eq!(agent.reload().await, Ok(moved));
    let Some(Told::Reload(model)) = told.recv().await else {
        panic!("no reload")
    };
    assert_eq!(model.pools[0].backends[0].address.port(), 81);
    assert_eq!(agent.model, *model);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_noted() {
    let file = File::new(&text(None, 80));
    let (mut agent, mut told) = agent(&file, Ok(applied(&[])), Ok(()));
    let before = agent.model.clone();
    file.write(&text(None, 70_000));
    let errors = agent.reload().await.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("error: port 70000 is out of range"),
        "{errors:?}"
    );
    assert_eq!(told.recv().await, Some(Told::Refused(errors[0].clone())));
    assert_eq!(agent.model, before);
    assert!(
        agent
            .metrics
            .exposition(&crate::status::StatusReport::default())
            .unwrap()
            .contains("_reload_successful 0\n")
    );
}

#[tokio::test]
async fn a_refusal_of_the_core_keeps_the_old_model_and_listener() {
    let old = free_address().await;
    let file = File::new(&text(Some(old), 80));
    let (mut agent, _told) = agent(&file, Err(vec!["flow_entries can't change".into()]), Ok(()));
    listening(&mut agent, old).await;
    file.write(&text(Some(free_address().await), 80));
    assert_eq!(
        agent.reload().await,
        Err(vec!["flow_entries can't change".into()])
    );
    assert_eq!(agent.model.metrics, Some(old));
    TcpListener::bind(old)
        .await
        .expect_err("the old listener is there");
}

#[tokio::test]
async fn metrics_move_to_another_address_or_stay_where_that_is_taken() {
    let (old, new) = (free_address().await, free_address().await);
    let file = File::new(&text(Some(old), 80));
    let (mut agent, mut told) = agent(&file, Ok(applied(&[])), Ok(()));
    listening(&mut agent, old).await;

    let taken = TcpListener::bind(new).await.unwrap();
    file.write(&text(Some(new), 80));
    let errors = agent.reload().await.unwrap_err();
    assert!(
        errors[0].starts_with(&format!(
            "the metrics can't listen on {new}: Address already in use"
        )),
        "{errors:?}"
    );
    assert_eq!(told.recv().await, Some(Told::Problem(None)), "it listens");
    assert!(
        matches!(told.recv().await, Some(Told::Refused(_))),
        "the core is not asked"
    );

    drop(taken);
    assert_eq!(
        agent.reload().await,
        Ok(applied(&[&format!("metrics listen on {new}")]))
    );
    TcpListener::bind(new)
        .await
        .expect_err("the new listener is there");
    file.write(&text(None, 80));
    assert_eq!(agent.reload().await, Ok(applied(&["metrics are off"])));
}

#[tokio::test]
async fn a_port_that_is_taken_at_the_start_is_served_as_soon_as_it_is_free() {
    let address = free_address().await;
    let taken = TcpListener::bind(address).await.unwrap();
    let file = File::new(&text(Some(address), 80));
    let (mut agent, mut told) = agent(&file, Ok(applied(&[])), Ok(()));
    agent.listen();
    let Some(Told::Problem(Some(problem))) = told.recv().await else {
        panic!("no problem is told")
    };
    assert!(
        problem.contains(&address.to_string()) && problem.contains("help: "),
        "{problem}"
    );
    assert_eq!(
        agent.reload().await,
        Ok(applied(&[])),
        "a reload that leaves the address alone is not held up"
    );
    drop(taken);
    let served =
        async { while told.recv().await.expect("an agent that runs") != Told::Problem(None) {} };
    timeout(PATIENCE, served).await.expect("it is served");
    TcpStream::connect(address).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_no_problem_once_nobody_wants_it() {
    let address = free_address().await;
    let _taken = TcpListener::bind(address).await.unwrap();
    let file = File::new(&text(Some(address), 80));
    let (mut agent, mut told) = agent(&file, Ok(applied(&[])), Ok(()));
    agent.listen();
    assert!(matches!(told.recv().await, Some(Told::Problem(Some(_)))));
    file.write(&text(None, 80));
    assert_eq!(agent.reload().await, Ok(applied(&["metrics are off"])));
    assert!(
        matches!(told.recv().await, Some(Told::Reload(_))),
        "it is asked first"
    );
    assert_eq!(told.recv().await, Some(Told::Problem(None)));
}

#[tokio::test]
async fn a_reload_gives_the_warnings_of_the_file() {
    let file = File::new(&text(None, 80));
    let (mut agent, _told) = agent(&file, Ok(applied(&[])), Ok(()));
    let spare = "[[pool]]\nname = \"spare\"\n[[pool.backend]]\naddress = \"10.0.0.9:80\"\n";
    file.write(&format!("{}{spare}", text(None, 80)));
    let warnings = agent.reload().await.unwrap().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("spare"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn the_end_is_a_success_only_where_nothing_is_left() {
    let file = File::new(&text(None, 80));
    for (left, wanted) in [
        (Ok(()), ExitCode::SUCCESS),
        (
            Err(vec!["eth0 can't be detached".into()]),
            ExitCode::FAILURE,
        ),
    ] {
        let (agent, mut told) = agent(&file, Ok(applied(&[])), left);
        assert_eq!(agent.shutdown(tokio::spawn(async {})).await, wanted);
        assert_eq!(told.recv().await, Some(Told::Shutdown));
    }
}
