//! The check that connects.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::probe::{Deadline, Failure, failure};

/// Passes when the backend accepts a connection.
pub(super) async fn check(target: SocketAddr, deadline: &Deadline) -> Result<(), Failure> {
    connect(target, deadline).await.map(drop)
}

/// A connection that leaves nothing behind when it is closed.
///
/// It is closed by RST (`SO_LINGER` of zero, which does not block). An ordinary close would leave a socket in
/// `TIME_WAIT` for a minute on the balancer for each check: 60,000 of them for a thousand backends checked every second.
/// Nothing can be lost by it: a TCP check sends nothing, and an HTTP check closes only after it has read what it wants.
/// `HAProxy` does the same.
pub(super) async fn connect(target: SocketAddr, deadline: &Deadline) -> Result<TcpStream, Failure> {
    let connect = async {
        TcpStream::connect(target)
            .await
            .map_err(|error| failure(&error))
    };
    let stream = deadline.limit(connect, || "connecting").await?;
    stream.set_zero_linger().map_err(|error| failure(&error))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_listening_backend_passes_and_sees_the_connection_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        assert_eq!(
            check(target, &Deadline::after(Duration::from_secs(5))).await,
            Ok(())
        );
        let (mut stream, _) = listener.accept().await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let outcome = check(target, &Deadline::after(Duration::from_secs(5))).await;
        assert_eq!(outcome, Err(Failure::Backend("connection refused".into())));
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_the_syn_times_out() {
        // A full queue of connections drops the SYN, which is what a dead host looks like.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let target = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let outcome = loop {
            match connect(target, &Deadline::after(Duration::from_millis(200))).await {
                Ok(stream) => waiting.push(stream),
                Err(failure) => break failure,
            }
            assert!(waiting.len() < 10, "the queue is never full");
        };
        assert_eq!(
            outcome,
            Failure::Timeout("timed out after 200 ms while connecting".into())
        );
    }
}
