//! nginx, one process in a backend's namespace, that answers everything with the name of its server.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::http::Client;
use crate::netns::Netns;
use crate::poll::SOON;
use crate::scratch::Scratch;
use crate::topology::Host;

/// Its port.
pub const PORT: u16 = 80;
/// Where it tells how many connections and requests it has had (`ngx_http_stub_status_module`).
pub const COUNTERS: &str = "/counters";

/// A running nginx; killed when dropped.
///
/// It runs without a master, so that `kill -9` of the one process is the death of the server: connections are reset
/// and the port is closed at once.
pub struct Nginx {
    netns: Netns,
    address: SocketAddr,
    name: String,
    scratch: Scratch,
    daemon: Daemon,
}

impl Nginx {
    /// Starts it and waits until it answers. `GET /` gives `name`; `GET /status/503` gives that status.
    ///
    /// # Errors
    /// Where it does not come up, with its log.
    pub fn start(host: &Host, name: &str) -> Result<Self> {
        Self::listening(host, name, &PORT.to_string())
    }

    /// The same, but listening at the host's address only, so that a namespace with several has room for as many.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_at_address(host: &Host, name: &str) -> Result<Self> {
        Self::listening(host, name, &format!("{}:{PORT}", host.address))
    }

    fn listening(host: &Host, name: &str, listen: &str) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        scratch.write("nginx.conf", &configuration(name, listen))?;
        let daemon = launch(&host.netns, &scratch)?;
        let address = (host.address, PORT).into();
        let nginx = Self {
            netns: host.netns.clone(),
            address,
            name: name.to_owned(),
            scratch,
            daemon,
        };
        nginx.wait_until_ready()?;
        Ok(nginx)
    }

    /// One for each host, named `web0`, `web1` and so on.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn on_each(hosts: &[Host]) -> Result<Vec<Self>> {
        let numbered = hosts.iter().enumerate();
        numbered
            .map(|(number, host)| Self::start(host, &format!("web{number}")))
            .collect()
    }

    /// Has it answer `GET /files/<name>` with this text.
    ///
    /// # Errors
    /// That of writing.
    pub fn offer(&self, name: &str, text: &str) -> Result<()> {
        fs::create_dir_all(self.scratch.file("files")).context("making a directory of files")?;
        self.scratch.write(&format!("files/{name}"), text)?;
        Ok(())
    }

    /// What it answers with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// How a person would start it again.
    #[must_use]
    pub fn command_line(&self) -> String {
        let netns = self.netns.name();
        let prefix = self.scratch.file("");
        format!(
            "ip netns exec {netns} nginx -p {} -c nginx.conf &",
            prefix.display()
        )
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// Where it is dead already.
    pub fn kill(&self) -> Result<()> {
        self.daemon.kill()
    }

    /// Starts it again after [`Nginx::kill`] and waits until it answers.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.daemon = launch(&self.netns, &self.scratch)?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let client = Client::new(&self.netns, self.address());
        self.daemon.wait_until(SOON, "answering", || {
            let answer = client.get("/")?;
            ensure!(
                answer.body == self.name,
                "another server answers: {answer:?}"
            );
            Ok(())
        })
    }
}

fn launch(netns: &Netns, scratch: &Scratch) -> Result<Daemon> {
    let mut command = netns.command("nginx");
    let prefix = scratch.file("");
    command
        .arg("-e")
        .arg("stderr")
        .arg("-p")
        .arg(prefix)
        .arg("-c")
        .arg("nginx.conf");
    Daemon::start(command, &scratch.file("nginx.log"))
}

fn configuration(name: &str, listen: &str) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr warn; worker_rlimit_nofile 16384;
events {{ worker_connections 16384; }}
http {{
    access_log off; default_type text/plain; keepalive_timeout 600; keepalive_requests 1000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen {listen} backlog=65535;
        location / {{ return 200 '{name}\\n'; }}
        location /files/ {{ root .; }}
        location {COUNTERS} {{ stub_status; }}
        location /status/503 {{ return 503; }}
        location /status/204 {{ return 204; }}
    }}
}}
"
    )
}
