//! The check that asks by HTTP/1.1 (RFC 9112) and looks at the status.
//!
//! The request is written whatever the server does meanwhile, and then the answer is read: one that was there before the
//! request counts, as scripts behind xinetd or socat give it. A bound on time and on the size of the head holds whatever
//! the server sends or does not send, and each way to go wrong has its words.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout_at,
};

use super::{
    probe::{Deadline, Failure, failure},
    tcp,
};

/// Largest head of an answer; nginx sends a few hundred bytes.
const MAX_HEAD: usize = 16 << 10;
/// Most headers of an answer.
const MAX_HEADERS: usize = 100;
/// Most of a body that is read after the verdict, so that a small one is not cut off.
const MAX_BODY: usize = 64 << 10;
/// How much of an answer that is not HTTP is shown.
const SHOWN: usize = 40;

const AGENT: &str = concat!("lb-health-check/", env!("CARGO_PKG_VERSION"));

/// Passes when `GET path` is answered with one of the statuses in `expect` (inclusive ranges).
pub(super) async fn check(
    target: SocketAddr,
    deadline: &Deadline,
    path: &str,
    host: Option<&str>,
    expect: &[(u16, u16)],
) -> Result<(), Failure> {
    let mut stream = tcp::connect(target, deadline).await?;
    let host = host.map_or_else(|| target.to_string(), str::to_owned);
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    let came = AtomicUsize::new(0);
    let ask = ask(&mut stream, &request, &came);
    let status = deadline.limit(ask, || waiting(&came)).await?;
    tokio::spawn(timeout_at(deadline.at, await_end(stream)));
    if expect
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&status))
    {
        return Ok(());
    }
    Err(Failure::Backend(format!(
        "status {status}, expected {}",
        ranges(expect)
    )))
}

/// `200-299 or 304`.
fn ranges(expect: &[(u16, u16)]) -> String {
    let words = expect.iter().map(|(low, high)| {
        if low == high {
            low.to_string()
        } else {
            format!("{low}-{high}")
        }
    });
    words.collect::<Vec<_>>().join(" or ")
}

/// Sends the request and reads the status of the answer; `came` counts its bytes.
///
/// A server that has answered and gone resets the connection when the request reaches it. What it sent before can be
/// read all the same, so a request that can't be sent is told only where nothing came.
async fn ask(stream: &mut TcpStream, request: &str, came: &AtomicUsize) -> Result<u16, Failure> {
    let mut unsent = None;
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        if !is_gone(&error) {
            return Err(failure(&error));
        }
        unsent = Some(failure(&error));
    }
    let mut answer = Vec::with_capacity(1 << 10);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err(closed(came.load(Ordering::Relaxed), unsent)),
            Ok(more) => came.fetch_add(more, Ordering::Relaxed),
            Err(error) => return Err(failure(&error)),
        };
        if let Some(status) = status(&mut answer)? {
            return Ok(status);
        }
    }
}

/// The status of the final answer, once its head is here. Interim answers before it are taken out of `answer`.
fn status(answer: &mut Vec<u8>) -> Result<Option<u16>, Failure> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        match (head.parse(answer), head.code) {
            (Ok(httparse::Status::Complete(length)), Some(100 | 102..=199)) => {
                drop(answer.drain(..length));
            }
            (Ok(httparse::Status::Complete(_)), status) => return Ok(status),
            (Ok(httparse::Status::Partial), _) if answer.len() < MAX_HEAD => return Ok(None),
            (Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders), _) => {
                return Err(Failure::Backend(format!(
                    "the head of the answer is larger than {} KiB or has more than {MAX_HEADERS} headers",
                    MAX_HEAD >> 10
                )));
            }
            (Err(error), _) => {
                let shown = &answer[..answer.len().min(SHOWN)];
                return Err(Failure::Backend(format!(
                    "not HTTP: {error}; the answer begins with \"{}\"",
                    shown.escape_ascii()
                )));
            }
        }
    }
}

/// Whether the peer has closed its end.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// The server has closed before the head of its answer was there.
fn closed(came: usize, unsent: Option<Failure>) -> Failure {
    match (came, unsent) {
        (0, Some(failure)) => failure,
        (0, None) => Failure::Backend("connection closed without an answer".to_owned()),
        (came, _) => Failure::Backend(format!(
            "connection closed in the head of the answer, after {came} bytes"
        )),
    }
}

/// What a check that runs out of time was doing.
fn waiting(came: &AtomicUsize) -> String {
    match came.load(Ordering::Relaxed) {
        0 => "waiting for the answer".to_owned(),
        length => format!("reading the head of the answer, of which {length} bytes came"),
    }
}

/// Reads until the server closes, as it was asked to, so that it is not cut off and has no error to log; the reset that
/// follows ends its socket too. Nothing that goes wrong here changes the verdict, which was given on the head.
async fn await_end(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    let mut length = 0;
    while let Ok(more) = stream.read(&mut buffer).await {
        length += more;
        if more == 0 || length > MAX_BODY {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
