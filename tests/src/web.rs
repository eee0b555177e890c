//! What most suites start with: a network, an nginx on every backend, and the agent with service `www` over them.

use anyhow::{Result, ensure};

use crate::agent::config::Check;
use crate::agent::{Agent, Config};
use crate::http::Client;
use crate::nginx::Nginx;
use crate::poll::{self, SOON};
use crate::topology::{Topology, VIP};

/// A balanced web site; all of it gone when dropped.
pub struct Web {
    /// The agent, ready.
    pub agent: Agent,
    /// The servers, answering, named as their backends: `web0`, `web1` and so on.
    pub servers: Vec<Nginx>,
    /// Where they are.
    pub topology: Topology,
}

impl Web {
    /// Starts the usual configuration ([`Config::web`]) and waits until every backend is in rotation.
    ///
    /// # Errors
    /// Where a part does not come up, with its log.
    pub fn start(topology: Topology, check: Option<Check>) -> Result<Self> {
        let config = Config::web(&topology, check);
        Self::with_config(topology, &config)
    }

    /// The same with another configuration.
    ///
    /// # Errors
    /// As [`Web::start`].
    pub fn with_config(topology: Topology, config: &Config) -> Result<Self> {
        let servers = Nginx::on_each(&topology.backends)?;
        let agent = Agent::start(&topology.balancer.netns, config)?;
        let web = Self {
            agent,
            servers,
            topology,
        };
        web.wait_until_all_serve()?;
        Ok(web)
    }

    /// Waits until every backend in force is in rotation and its next hop known.
    ///
    /// # Errors
    /// When that takes too long, with the status.
    pub fn wait_until_all_serve(&self) -> Result<()> {
        poll::until(SOON, "all backends to serve", || {
            let status = self.agent.status()?;
            let mut rows = status.services.iter().flat_map(|service| &service.backends);
            let all = rows
                .all(|row| row.in_rotation && row.next_hop.is_some() && row.state != "checking");
            ensure!(all, "{:#?}", status.services);
            Ok(())
        })
    }

    /// A client of the service, in the client's namespace.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.topology.client.netns, (VIP, 80))
    }
}
