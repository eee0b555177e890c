//! A server that does everything wrong, one thing at a time.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::TcpListener,
    time::{Instant, sleep},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

/// A server that reads the request, gives `answer` to one connection and then does what `then` says. What it got is
/// the task's output.
async fn server<F>(
    answer: &'static [u8],
    then: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, tokio::task::JoinHandle<String>)
where
    F: Future<Output = ()> + Send + 'static,
{
    server_at(Ipv4Addr::LOCALHOST, answer, then).await
}

async fn server_at<F>(
    address: Ipv4Addr,
    answer: &'static [u8],
    then: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, tokio::task::JoinHandle<String>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let target = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        // The checker may hang up in the middle of an answer that is too long.
        drop(stream.write_all(answer).await);
        then(stream).await;
        String::from_utf8(request).unwrap()
    });
    (target, task)
}

async fn hang_up(stream: TcpStream) {
    drop(stream);
}

/// Closes by a reset.
fn hang_up_hard(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

async fn hold(stream: TcpStream) {
    sleep(Duration::from_mins(1)).await;
    drop(stream);
}

async fn ok(target: SocketAddr, timeout: Duration) -> Result<(), String> {
    match check(
        target,
        &Deadline::after(timeout),
        "/",
        None,
        &[(200, 299), (304, 304)],
    )
    .await
    {
        Ok(()) => Ok(()),
        Err(Failure::Backend(reason) | Failure::Timeout(reason) | Failure::Local(reason)) => {
            Err(reason)
        }
    }
}

async fn fails(answer: &'static [u8]) -> String {
    let (target, _) = server(answer, hang_up).await;
    ok(target, PATIENCE).await.unwrap_err()
}

async fn times_out(answer: &'static [u8]) -> String {
    let (target, server) = server(answer, hold).await;
    let start = Instant::now();
    let reason = ok(target, Duration::from_millis(400)).await.unwrap_err();
    assert!(start.elapsed() < PATIENCE / 2, "took {:?}", start.elapsed());
    server.abort();
    reason
}

#[tokio::test]
async fn the_request_is_what_a_web_server_expects() {
    let (target, server) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", hang_up).await;
    let deadline = Deadline::after(PATIENCE);
    assert_eq!(
        check(
            target,
            &deadline,
            "/h?x=1",
            Some("www.example.com"),
            &[(200, 200)]
        )
        .await,
        Ok(())
    );
    let request = server.await.unwrap();
    let mut lines: Vec<&str> = request.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.remove(0), "GET /h?x=1 HTTP/1.1");
    lines.sort_unstable();
    let agent = format!("user-agent: lb-health-check/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        lines,
        [
            "accept: */*",
            "connection: close",
            "host: www.example.com",
            &agent
        ]
    );
}

#[tokio::test]
async fn the_host_is_the_checked_address_where_none_is_given() {
    let (target, server) = server(b"HTTP/1.1 204 No Content\r\n\r\n", hang_up).await;
    assert_eq!(ok(target, PATIENCE).await, Ok(()));
    assert!(
        server
            .await
            .unwrap()
            .contains(&format!("host: {target}\r\n"))
    );
}

#[tokio::test]
async fn statuses_decide() {
    for good in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"HTTP/1.0 299 Fine\r\n\r\n",
        b"HTTP/1.1 304\r\n\r\n",
    ] {
        let (target, _) = server(good, hang_up).await;
        assert_eq!(
            ok(target, PATIENCE).await,
            Ok(()),
            "{}",
            good.escape_ascii()
        );
    }
    let busy = fails(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(busy, "status 503, expected 200-299 or 304");
    assert_eq!(
        fails(b"HTTP/1.1 301 Moved\r\n\r\n").await,
        "status 301, expected 200-299 or 304"
    );
}

#[tokio::test]
async fn an_interim_answer_is_not_the_answer() {
    let (target, _) = server(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        hang_up,
    )
    .await;
    assert_eq!(ok(target, PATIENCE).await, Ok(()));
}

#[tokio::test]
async fn the_verdict_does_not_wait_for_the_body() {
    let (target, server) =
        server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", hold).await;
    let start = Instant::now();
    assert_eq!(ok(target, PATIENCE).await, Ok(()));
    assert!(start.elapsed() < PATIENCE / 2);
    server.abort();
}

#[tokio::test]
async fn a_small_body_is_read_to_its_end() {
    let (target, server) = server(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        |mut stream| async move {
            for _ in 0..20 {
                stream.write_all(&[b'x'; 1000]).await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
            stream.shutdown().await.unwrap();
        },
    )
    .await;
    assert_eq!(ok(target, PATIENCE).await, Ok(()));
    server.await.expect("the server was not cut off");
}

#[tokio::test]
async fn silence_times_out() {
    assert_eq!(
        times_out(b"").await,
        "timed out after 400 ms while waiting for the answer"
    );
}

#[tokio::test]
async fn half_a_line_times_out() {
    let reason = times_out(b"HTTP/1.1 20").await;
    assert_eq!(
        reason,
        "timed out after 400 ms while reading the head of the answer, of which 11 bytes came"
    );
}

#[tokio::test]
async fn half_a_line_and_a_hang_up_is_no_answer() {
    assert_eq!(
        fails(b"HTTP/1.1 20").await,
        "connection closed in the head of the answer, after 11 bytes"
    );
    assert_eq!(fails(b"").await, "connection closed without an answer");
}

#[tokio::test]
async fn a_byte_at_a_time_does_not_stretch_the_time() {
    let (target, server) = server(b"HTTP/1.1 200 OK\r\n", |mut stream| async move {
        while stream.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let start = Instant::now();
    let reason = ok(target, Duration::from_millis(400)).await.unwrap_err();
    assert!(
        reason
            .starts_with("timed out after 400 ms while reading the head of the answer, of which "),
        "{reason}"
    );
    assert!(start.elapsed() < PATIENCE / 2, "took {:?}", start.elapsed());
    server.await.unwrap();
}

#[tokio::test]
async fn endless_headers_end() {
    let wanted = "the head of the answer is larger than 16 KiB or has more than 100 headers";
    for header in [
        &b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"[..],
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let (target, server) = server(b"HTTP/1.1 200 OK\r\n", move |mut stream| async move {
            while stream.write_all(header).await.is_ok() {}
        })
        .await;
        assert_eq!(ok(target, PATIENCE).await.unwrap_err(), wanted);
        server.await.unwrap();
    }
}

#[test]
fn a_hundred_headers_and_16_kib_are_taken_and_no_more() {
    let with_headers = |count: usize| {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        head.extend(b"a: b\r\n".repeat(count));
        head.extend(b"\r\n");
        status(&mut head)
    };
    assert_eq!(with_headers(100), Ok(Some(200)));
    assert!(with_headers(101).is_err());
    let with_length = |length: usize| {
        let mut head = b"HTTP/1.1 200 OK\r\na: ".to_vec();
        head.resize(length, b'a');
        status(&mut head)
    };
    assert_eq!(with_length(MAX_HEAD - 1), Ok(None));
    assert!(with_length(MAX_HEAD).is_err());
}

#[tokio::test]
async fn an_endless_row_of_interim_answers_ends() {
    let (target, server) = server(b"", |mut stream| async move {
        while stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .is_ok()
        {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let reason = ok(target, Duration::from_millis(400)).await.unwrap_err();
    assert!(
        reason.starts_with("timed out after 400 ms while reading the head"),
        "{reason}"
    );
    server.await.unwrap();
}

#[tokio::test]
async fn garbage_is_shown() {
    assert_eq!(
        fails(b"\x15\x03\x01\x00\x02\x02F").await,
        r#"not HTTP: invalid HTTP version; the answer begins with "\x15\x03\x01\x00\x02\x02F""#
    );
    assert_eq!(
        fails(b"HTTP/1.1 2xx OK\r\n\r\n").await,
        r#"not HTTP: invalid response status; the answer begins with "HTTP/1.1 2xx OK\r\n\r\n""#
    );
    assert_eq!(
        fails(b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n").await,
        r#"not HTTP: invalid header name; the answer begins with "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n""#
    );
    let flood = fails(&[b'z'; 10_000]).await;
    assert!(
        flood.starts_with("not HTTP: ") && flood.ends_with(&format!("\"{}\"", "z".repeat(40))),
        "{flood}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_first_is_not_http() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await);
        hold(stream).await;
    });
    let reason = ok(target, PATIENCE).await.unwrap_err();
    assert!(reason.starts_with("not HTTP: "), "{reason}");
    assert!(
        reason.ends_with(r#"; the answer begins with "SSH-2.0-OpenSSH_9.2p1\r\n""#),
        "{reason}"
    );
    task.abort();
}

/// What a server does with a connection.
type Answer = fn(&mut std::net::TcpStream) -> std::io::Result<()>;

/// A server that does `answer` with each of 20 connections, and what a check of each says. It runs on a thread of its own
/// and never waits for the request, so that most of its answers are there before the request is written.
async fn hasty(answer: Answer) -> Vec<Result<(), String>> {
    const CONNECTIONS: usize = 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = listener.accept().unwrap();
            // Or the kernel keeps a piece back until the one before is acknowledged, and throws it away where the
            // connection is closed with the request unread.
            stream.set_nodelay(true).unwrap();
            // The checker may have gone.
            drop(answer(&mut stream));
        }
    });
    let mut outcomes = Vec::new();
    for _ in 0..CONNECTIONS {
        outcomes.push(ok(target, PATIENCE).await);
    }
    server.join().unwrap();
    outcomes
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_counts() {
    use std::io::Write as _;

    let manners: [(&str, Answer); 6] = [
        ("answers and closes", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        }),
        ("answers by HTTP/1.0 without a length", |stream| {
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nup\n")
        }),
        ("answers and resets when the request comes", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nok")?;
            // The kernel resets a connection that is closed with something unread.
            stream.peek(&mut [0]).map(drop)
        }),
        ("answers in pieces", |stream| {
            for piece in [&b"HTTP/1."[..], b"1 200", b" OK\r\n", b"A: b\r\n\r", b"\n"] {
                stream.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }),
        ("closes after the headers of a longer answer", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        }),
        ("answers an interim answer and another", |stream| {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        }),
    ];
    for (manner, answer) in manners {
        assert_eq!(hasty(answer).await, vec![Ok(()); 20], "{manner}");
    }
}

#[tokio::test]
async fn what_came_before_a_reset_counts_though_nothing_can_be_sent() {
    for (answer, wanted) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nok"[..], Ok(200)),
        (
            b"HTTP/1.1 20",
            Err("connection closed in the head of the answer, after 11 bytes"),
        ),
        (b"", Err("connection reset")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let deadline = Deadline::after(PATIENCE);
        let target = listener.local_addr().unwrap();
        let mut stream = tcp::connect(target, &deadline).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(answer).await.unwrap();
        hang_up_hard(server);
        let both = Interest::READABLE | Interest::WRITABLE;
        let closed = async {
            while !stream.ready(both).await.unwrap().is_write_closed() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closed)
            .await
            .expect("a reset");
        let came = AtomicUsize::new(0);
        let status = ask(&mut stream, "GET / HTTP/1.1\r\n\r\n", &came).await;
        let wanted = wanted.map_err(|reason| Failure::Backend(reason.to_owned()));
        assert_eq!(status, wanted, "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_bad_answer_that_comes_before_the_request_says_what_is_bad() {
    use std::io::Write as _;

    for outcome in hasty(|stream| stream.write_all(b"HTTP/1.0 503 Busy\r\n\r\n")).await {
        assert_eq!(outcome, Err("status 503, expected 200-299 or 304".into()));
    }
    for outcome in hasty(|stream| stream.write_all(b"HTTP/1.1 20")).await {
        let reason = outcome.unwrap_err();
        let words = [
            "connection closed in the head of the answer, after 11 bytes",
            "connection reset",
        ];
        assert!(words.contains(&reason.as_str()), "{reason}");
    }
    for outcome in hasty(|_| Ok(())).await {
        let reason = outcome.unwrap_err();
        let words = ["connection closed without an answer", "connection reset"];
        assert!(words.contains(&reason.as_str()), "{reason}");
    }
}

#[tokio::test]
async fn a_reset_is_named() {
    let (target, _) = server(b"", |stream| async move { hang_up_hard(stream) }).await;
    assert_eq!(ok(target, PATIENCE).await.unwrap_err(), "connection reset");
}

#[tokio::test]
async fn checks_leave_no_socket_behind() {
    // An address of this test's own: a port alone may be one that another program's connection has had.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 64 | a, b, c);
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 503 Busy\r\n\r\n",
        b"garbage!",
    ] {
        let (target, server) = server_at(address, answer, hang_up).await;
        drop(ok(target, PATIENCE).await);
        server.await.unwrap();
    }
    // The connection is read to its end by a task of its own; until then the socket is in another state.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = sockets_of(address);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left: {left:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Both ends of connections to this address, in whatever state, as /proc/net/tcp shows them.
fn sockets_of(address: Ipv4Addr) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let shown = format!("{:08X}:", u32::from_ne_bytes(address.octets()));
    let is_one = |line: &&str| {
        let mut addresses = line.split_whitespace().skip(1).take(2);
        addresses.any(|address| address.starts_with(&shown))
    };
    table.lines().filter(is_one).map(str::to_owned).collect()
}
