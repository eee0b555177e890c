//! A TCP server of the host's own, such as its SSH: says one line to whoever connects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::poll::SOON;

/// What it says, like an SSH server.
pub const BANNER: &str = "SSH-2.0-harness\r\n";

/// A listener; closed when dropped.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Listens at an address of a namespace.
    ///
    /// # Errors
    /// Where the address is not there or taken.
    pub fn start(netns: &Netns, address: impl Into<SocketAddr>) -> Result<Self> {
        let address = address.into();
        let listener = netns
            .run(|| TcpListener::bind(address))?
            .with_context(|| address.to_string())?;
        let accepting = listener.try_clone()?;
        thread::spawn(move || {
            for mut stream in accepting.incoming().map_while(Result::ok) {
                // Where the peer has gone it has no use for the line.
                stream.write_all(BANNER.as_bytes()).unwrap_or_default();
            }
        });
        Ok(Self { listener })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the thread that accepts.
        if let Err(error) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            eprintln!("harness: a listener stays: {error}");
        }
    }
}

/// What the server at an address says first.
///
/// # Errors
/// Where it cannot be reached or says nothing in time.
pub fn banner(from: &Netns, address: impl Into<SocketAddr>) -> Result<String> {
    let address = address.into();
    let stream = from.run(|| TcpStream::connect_timeout(&address, SOON))?;
    let mut stream = stream.with_context(|| address.to_string())?;
    stream.set_read_timeout(Some(SOON))?;
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .with_context(|| address.to_string())?;
    Ok(said)
}
