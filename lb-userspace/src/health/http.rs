//! The check that asks by HTTP/1.1 (RFC 9112) and looks at the status.
//!
//! hyper parses the answer. What this module adds is a bound on time and on the size of the head, whatever the server
//! sends or does not send, and words for each way to go wrong.

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout_at,
};

use super::{
    probe::{Deadline, Failure, failure},
    tcp,
};

/// Largest head of an answer; nginx sends a few hundred bytes.
const MAX_HEAD: usize = 16 << 10;
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
    let stream = tcp::connect(target, deadline).await?;
    let seen = Seen::default();
    let host = host.map_or_else(|| target.to_string(), str::to_owned);
    let ask = ask(
        Recorded {
            stream,
            seen: seen.clone(),
        },
        *deadline,
        path,
        &host,
        &seen,
    );
    let status = deadline.limit(ask, || seen.waiting()).await?;
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

/// Sends the request and waits for the head of the answer.
async fn ask(
    stream: Recorded,
    deadline: Deadline,
    path: &str,
    host: &str,
    seen: &Seen,
) -> Result<u16, Failure> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Backend(format!("the request can't be made: {error}")))?;

    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| seen.explain(&error))?;
    // Without hyper's shutdown, which would send the first FIN and so keep `TIME_WAIT` on this side.
    let mut connection = Box::pin(connection.without_shutdown());
    let mut left = None;

    let answer = {
        let mut answer = pin!(sender.send_request(request));
        tokio::select! {
            answer = &mut answer => answer,
            // It ends by itself where the server hangs up; the answer, or what was wrong with it, is there by then.
            ended = &mut connection => match ended {
                Ok(parts) => {
                    left = Some(parts.io.into_inner());
                    answer.await
                }
                Err(error) => Err(error),
            },
        }
    };
    let answer = answer.map_err(|error| seen.explain(&error))?;
    let status = answer.status().as_u16();
    tokio::spawn(timeout_at(deadline.at, async move {
        let left = match left {
            Some(stream) => Some(stream),
            None => read_on(answer, connection).await,
        };
        if let Some(stream) = left {
            await_end(stream).await;
        }
    }));
    Ok(status)
}

/// Reads the body, so that the server is not cut off and has no error to log; gives the connection back where it is
/// still whole. Nothing that goes wrong here changes the verdict, which was given on the head.
async fn read_on(
    mut answer: Response<Incoming>,
    connection: impl Future<Output = hyper::Result<http1::Parts<TokioIo<Recorded>>>>,
) -> Option<Recorded> {
    let body = async move {
        let mut length = 0;
        while let Some(Ok(frame)) = answer.body_mut().frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > MAX_BODY {
                break;
            }
        }
    };
    let ((), ended) = futures_util::future::join(body, connection).await;
    ended.ok().map(|parts| parts.io.into_inner())
}

/// Waits until the server closes, as it was asked to; the reset that follows then ends its socket too.
async fn await_end(mut stream: Recorded) {
    let mut buffer = [0; 1024];
    let mut length = 0;
    while let Ok(more) = stream.read(&mut buffer).await {
        length += more;
        if more == 0 || length > MAX_BODY {
            break;
        }
    }
}

/// What has come from the server so far: its length and its first bytes.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<(usize, Vec<u8>)>>);

impl Seen {
    fn add(&self, bytes: &[u8]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 += bytes.len();
        let room = SHOWN.saturating_sub(seen.1.len()).min(bytes.len());
        seen.1.extend_from_slice(&bytes[..room]);
    }

    fn length(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// What a check that runs out of time was doing.
    fn waiting(&self) -> String {
        match self.length() {
            0 => "waiting for the answer".to_owned(),
            length => format!("reading the head of the answer, of which {length} bytes came"),
        }
    }

    fn explain(&self, error: &hyper::Error) -> Failure {
        if let Some(error) = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
        {
            return failure(error);
        }
        let length = self.length();
        Failure::Backend(if error.is_parse_too_large() {
            format!(
                "the head of the answer is larger than {} KiB or has more than 100 headers",
                MAX_HEAD >> 10
            )
        } else if length == 0 {
            "connection closed without an answer".to_owned()
        } else if error.is_incomplete_message() {
            format!("connection closed in the head of the answer, after {length} bytes")
        } else {
            let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            format!(
                "not HTTP: {error}; the answer begins with \"{}\"",
                seen.1.escape_ascii()
            )
        })
    }
}

/// A stream that notes what is read from it.
#[derive(Debug)]
struct Recorded {
    stream: TcpStream,
    seen: Seen,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.seen.add(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
