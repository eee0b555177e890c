//! Servers that accept a connection and then do something that no server should, to be met by health checks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::topology::Host;

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reads the request and never answers.
    Silent,
    /// Answers well, one byte every 20 ms, which takes longer than any check waits.
    Slow,
    /// Answers with bytes that are no HTTP, and closes.
    Garbage,
    /// Answers with the first half of a status line, and closes.
    HalfLine,
    /// Answers with the first half of a status line, and says no more.
    HalfLineThenSilent,
    /// Sends headers as fast as it can, for ever.
    Endless,
    /// Sends a status line without end.
    EndlessLine,
    /// Closes at once.
    Closes,
    /// Answers well: status 200.
    Well,
    /// Answers well and closes at once, without reading the request, as scripts behind xinetd and socat do.
    AnswersFirst,
}

/// A server of that manner; it takes no more connections when dropped.
pub struct Server {
    listener: TcpListener,
    address: SocketAddrV4,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
}

impl Server {
    /// Starts it on a host.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn start(host: &Host, port: u16, manner: Manner) -> Result<Self> {
        let address = SocketAddrV4::new(host.address, port);
        let listener = host
            .netns
            .run(|| TcpListener::bind(address))?
            .with_context(|| address.to_string())?;
        let stopped = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicU64::new(0));
        let server = Self {
            listener: listener.try_clone()?,
            address,
            stopped: Arc::clone(&stopped),
            connections: Arc::clone(&connections),
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                connections.fetch_add(1, Ordering::Relaxed);
                let stopped = Arc::clone(&stopped);
                // An error means that the peer has had enough, which is what these servers are for.
                thread::spawn(move || serve(stream, manner, &stopped).unwrap_or_default());
            }
        });
        Ok(server)
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; the port is free again as soon as it has gone.
        if let Err(error) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            eprintln!("harness: the server at {} stays: {error}", self.address);
        }
    }
}

const WELL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const HALF_LINE: &[u8] = b"HTTP/1.1 20";

fn serve(mut stream: TcpStream, manner: Manner, stopped: &AtomicBool) -> std::io::Result<()> {
    if manner == Manner::Closes {
        return stream.shutdown(Shutdown::Both);
    }
    if manner == Manner::AnswersFirst {
        return stream.write_all(WELL);
    }
    let mut request = [0; 1_024];
    stream.read(&mut request).map(drop)?;
    match manner {
        Manner::Silent | Manner::Closes | Manner::AnswersFirst => {}
        Manner::Well => return stream.write_all(WELL),
        Manner::Garbage => {
            return stream.write_all(&[0xff, 0x00, 0x16, 0x03, b'\n', b'?', b'\r', b'\n']);
        }
        Manner::HalfLine => return stream.write_all(HALF_LINE),
        Manner::HalfLineThenSilent => stream.write_all(HALF_LINE)?,
        Manner::Slow => {
            for byte in WELL {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        Manner::Endless | Manner::EndlessLine => {
            let block = if manner == Manner::Endless {
                "X-Endless: yes\r\n"
            } else {
                "and on, "
            };
            stream.write_all(b"HTTP/1.1 200 OK")?;
            if manner == Manner::Endless {
                stream.write_all(b"\r\n")?;
            }
            while !stopped.load(Ordering::Relaxed) {
                stream.write_all(block.as_bytes())?;
            }
            return Ok(());
        }
    }
    // Stay until the peer goes.
    while stream.read(&mut request)? > 0 {}
    Ok(())
}
