//! One TCP connection over which requests go one after the other.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Answer;

/// An open connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The kernel's, such as a refused connection.
    pub async fn open(host: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(host).await.context("connecting")?;
        stream.set_nodelay(true).context("connecting")?;
        Ok(Self {
            stream: BufReader::new(stream),
            host,
        })
    }

    /// Sends `GET path` and reads the whole answer; `last` asks the server to close afterwards.
    ///
    /// # Errors
    /// What failed: sending, reading, or that the answer is no HTTP.
    pub async fn get(&mut self, path: &str, last: bool) -> Result<Answer> {
        let close = if last { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", self.host);
        self.stream
            .write_all(request.as_bytes())
            .await
            .context("sending the request")?;
        let status_line = self.line().await.context("reading the status line")?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("status line `{status_line}`"))?;
        let mut length = None;
        loop {
            let header = self.line().await.context("reading the headers")?;
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut body = Vec::new();
        match length {
            Some(length) => {
                body.resize(length, 0);
                self.stream
                    .read_exact(&mut body)
                    .await
                    .context("reading the body")?;
            }
            None if last => {
                self.stream
                    .read_to_end(&mut body)
                    .await
                    .context("reading the body")?;
            }
            None => bail!("an answer without a length on a connection to be kept"),
        }
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&body).trim().to_owned(),
        })
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(line.trim_end().to_owned())
    }
}
