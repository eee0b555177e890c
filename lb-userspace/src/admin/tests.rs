//! Client and server over a real socket, with a core that knows one report.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    sync::mpsc,
    task::JoinHandle,
};

use super::*;
use crate::{
    core::{Handle, message::Message},
    status::StatusReport,
};

/// A directory that goes with the value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "lb-admin-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("lb.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// An API whose core reports an instance of this name and whose reloads are answered by `reload`.
fn agent(directory: &Directory, instance: &str, reload: ReloadReply) -> JoinHandle<()> {
    let (core, mut messages) = mpsc::channel(8);
    let (reloads, mut requests) = mpsc::channel::<ReloadRequest>(8);
    let report = StatusReport {
        instance: instance.into(),
        ..StatusReport::default()
    };
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            if let Message::Status { reply } = message {
                reply.send(report.clone()).unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            request.send(reload.clone()).unwrap();
        }
    });
    tokio::spawn(serve(
        bind(&directory.socket()).unwrap(),
        Handle(core),
        reloads,
    ))
}

#[tokio::test]
async fn the_client_gets_what_the_agent_says() {
    let directory = Directory::new();
    let applied = Applied {
        applied: vec!["backend web3 added".into()],
        warnings: vec!["pool spare is not used".into()],
    };
    let task = agent(&directory, "edge", Ok(applied.clone()));
    let client = Client::new(directory.socket());
    assert_eq!(client.status().await.unwrap().instance, "edge");
    assert_eq!(client.reload().await.unwrap(), applied);
    let version = client.version().await.unwrap();
    assert_eq!(
        version,
        Version {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id()
        }
    );
    task.abort();
}

#[tokio::test]
async fn a_refused_reload_carries_every_error() {
    let directory = Directory::new();
    let task = agent(
        &directory,
        "lb",
        Err(vec!["first".into(), "second\n   help: it".into()]),
    );
    let error = Client::new(directory.socket()).reload().await.unwrap_err();
    assert_eq!(error.to_string(), "first\nsecond\n   help: it");
    task.abort();
}

#[tokio::test]
async fn an_unknown_request_says_what_there_is() {
    let directory = Directory::new();
    let task = agent(&directory, "lb", Ok(Applied::default()));
    for (request, what) in [
        ("GET /v2", "GET /v2"),
        ("DELETE /v1/status", "DELETE /v1/status"),
    ] {
        let mut stream = tokio::net::UnixStream::connect(directory.socket())
            .await
            .unwrap();
        stream
            .write_all(
                format!("{request} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(
            answer.contains(&format!("there is no {what}: there are GET /v1/status")),
            "{answer}"
        );
    }
    task.abort();
}

#[tokio::test]
async fn an_absent_agent_is_named_with_the_help() {
    let directory = Directory::new();
    let socket = directory.socket();
    let error = Client::new(&socket).status().await.unwrap_err().to_string();
    let wanted = format!(
        "no agent answers at {}: No such file or directory (os error 2)\n   \
         help: start one (`systemctl start lb`, or `lb run --config FILE`)",
        socket.display()
    );
    assert_eq!(error, wanted);
    // A file, and a socket that a killed agent left.
    fs::write(directory.0.join("file.sock"), "").unwrap();
    drop(UnixListener::bind(directory.0.join("dead.sock")).unwrap());
    let error = Client::new(&socket).status().await.unwrap_err().to_string();
    assert_eq!(error, wanted, "nobody listens there");
    let _edge = UnixListener::bind(directory.0.join("edge.sock")).unwrap();
    let error = Client::new(&socket).status().await.unwrap_err().to_string();
    assert_eq!(
        error,
        wanted + "; there are sockets of edge: use --instance"
    );
}

#[tokio::test]
async fn what_is_no_agent_is_told_apart() {
    let directory = Directory::new();
    let listener = UnixListener::bind(directory.socket()).unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0\r\n").await.unwrap();
        }
    });
    let error = Client::new(directory.socket()).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Garbled { .. }), "{error}");
    task.abort();
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_agent() {
    let directory = Directory::new();
    let socket = bind(&directory.socket()).unwrap();
    assert_eq!(
        fs::metadata(directory.socket())
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o660
    );
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
    drop(socket);
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}

#[tokio::test]
async fn a_missing_directory_is_made() {
    let directory = Directory::new();
    drop(bind(&directory.0.join("run/lb/lb.sock")).unwrap());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let directory = Directory::new();
    let path = directory.socket();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let dead = fs::metadata(&path).unwrap().ino();
    let task = agent(&directory, "first", Ok(Applied::default()));
    assert_ne!(fs::metadata(&path).unwrap().ino(), dead);

    let error = bind(&path).unwrap_err();
    let pid = std::process::id();
    let wanted = format!(
        "process {pid} answers at {}: another agent runs\n   help: ",
        path.display()
    );
    assert!(error.to_string().starts_with(&wanted), "{error}");
    assert_eq!(Client::new(&path).status().await.unwrap().instance, "first");
    task.abort();
}

#[tokio::test]
async fn what_is_no_socket_stays() {
    let directory = Directory::new();
    fs::write(directory.socket(), "precious").unwrap();
    let error = bind(&directory.socket()).unwrap_err();
    assert!(matches!(error, SocketError::Foreign(_)), "{error}");
    assert_eq!(fs::read_to_string(directory.socket()).unwrap(), "precious");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_removed_is_made_again_and_another_is_left_alone() {
    let directory = Directory::new();
    let path = directory.socket();
    let task = agent(&directory, "lb", Ok(Applied::default()));
    let answers = async || {
        for _ in 0..60 {
            if let Ok(report) = Client::new(&path).status().await {
                return report.instance;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("nobody answers at {}", path.display());
    };
    assert_eq!(answers().await, "lb");
    fs::remove_file(&path).unwrap();
    assert_eq!(answers().await, "lb");

    // Somebody else takes the place.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let there = fs::metadata(&path).unwrap().ino();
    task.abort();
    drop(task.await);
    assert_eq!(fs::metadata(&path).unwrap().ino(), there);
    drop(other);
}

#[tokio::test]
async fn an_agent_whose_queue_is_full_is_a_living_one() {
    let directory = Directory::new();
    let path = directory.socket();
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    // Without blocking, because the one too many would wait for ever.
    while let Some(stream) = try_connect(&path) {
        waiting.push(stream);
    }
    let error = bind(&path).unwrap_err();
    assert!(matches!(error, SocketError::Living { .. }), "{error}");
}

fn try_connect(path: &std::path::Path) -> Option<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap())
        .ok()
        .map(|()| socket)
}
