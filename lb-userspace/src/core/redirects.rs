//! The kernel's ICMP redirects, which lead servers past a balancer that has one interface for them and the clients.

use super::{attachments::Attachment, host::Host, plane::PlaneLost, task::Core};

/// What was last seen to, and how that went.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// The interface and its index, and whether the host forwards.
    seen_to: Option<(Option<(String, u32)>, bool)>,
    /// Why redirects are on where they should be off.
    trouble: Option<String>,
}

impl Quiet {
    /// Has the next look be a real one, whatever was seen to.
    pub(super) fn doubt(&mut self) {
        self.seen_to = None;
    }

    /// What the operator has to do, where the agent can't.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }
}

impl<H: Host> Core<H> {
    /// Switches redirects off while a single interface carries clients and servers, and back where it no longer does.
    /// Where that can't be and the host forwards, it says what to type.
    pub(super) async fn quiet_redirects(&mut self) -> Result<(), PlaneLost> {
        let one_arm = match &self.model.interfaces[..] {
            [only] => match self.attachments.get(&only.name) {
                Some(Attachment::On(attached)) => Some((only.name.clone(), attached.ifindex)),
                // As they are, until it is known again.
                _ => return Ok(()),
            },
            _ => None,
        };
        let forwards = self.network.host_forwards;
        let wanted = Some((one_arm.clone(), forwards));
        if self.quiet.seen_to == wanted {
            return Ok(());
        }
        self.quiet.seen_to = wanted;
        let name = one_arm.map(|(name, _)| name);
        let interface = name.clone();
        let quiet = move |plane: &mut dyn crate::dataplane::Dataplane| {
            plane.quiet_redirects(interface.as_deref())
        };
        let trouble = match (self.plane.with(quiet).await?, name) {
            (Ok(true), Some(interface)) => {
                tracing::info!(
                    event = "redirects_off",
                    interface,
                    "the kernel sends no ICMP redirects until the program is detached: by them it would lead servers \
                     past the balancer"
                );
                None
            }
            (Ok(true), None) => {
                tracing::info!(event = "redirects_on", "ICMP redirects are as they were");
                None
            }
            (Ok(false), _) => None,
            // A kernel that does not forward sends none.
            (Err(error), _) if !forwards => {
                tracing::debug!(event = "redirects_failed", "{error}");
                None
            }
            (Err(error), _) => Some(format!(
                "the kernel forwards, and its ICMP redirects lead servers past the balancer, each for 300 s: {error}"
            )),
        };
        if let Some(trouble) = &trouble
            && self.quiet.trouble.as_ref() != Some(trouble)
        {
            tracing::warn!(event = "redirects_failed", "{trouble}");
        }
        self.quiet.trouble = trouble;
        Ok(())
    }
}
