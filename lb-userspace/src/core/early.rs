//! Questions that come while a start is under way, which may take as long as the kernel takes to verify the program.

use tokio::sync::{mpsc, oneshot};

use super::message::{Message, ShutdownReply};
use crate::status::{AgentReport, StatusReport};

/// What the agent is called before there is a core, and what it says of itself.
pub(super) struct Early {
    pub(super) instance: String,
    pub(super) report: AgentReport,
}

/// Why work was not waited for to its end: whoever asks waits for the answer.
pub(super) type Shutdown = oneshot::Sender<ShutdownReply>;

impl Early {
    /// Answers until `work` is done, or until the agent is to end; the work may then be gone on with.
    pub(super) async fn attend<T>(
        &mut self,
        messages: &mut mpsc::Receiver<Message>,
        mut work: impl Future<Output = T> + Unpin,
    ) -> Result<T, Shutdown> {
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                Some(message) = messages.recv() => {
                    if let Some(shutdown) = self.answer(message) {
                        return Err(shutdown);
                    }
                }
            }
        }
    }

    /// Adds what was said of the agent meanwhile to the report of the core, which has counted its own start.
    pub(super) fn hand_over(self, report: &mut AgentReport) {
        report.problems = self.report.problems;
        report.config_error = self.report.config_error;
    }

    fn answer(&mut self, message: Message) -> Option<Shutdown> {
        match message {
            Message::Ping { reply } => drop(reply.send(())),
            Message::Status { reply } => {
                let mut agent = self.report.clone();
                agent.not_ready.push("the agent is starting".to_owned());
                drop(reply.send(StatusReport {
                    instance: self.instance.clone(),
                    agent,
                    ..StatusReport::default()
                }));
            }
            Message::Problem { part, problem } => self.report.note(part, problem),
            Message::ConfigRefused { reason } => self.report.config_error = Some(reason),
            Message::Reload { reply, .. } => {
                let early = "the agent is starting\n   help: try again when it is ready".to_owned();
                drop(reply.send(Err(vec![early])));
            }
            Message::Shutdown { reply } => return Some(reply),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::core::{Handle, testing::model};

    #[tokio::test]
    async fn a_start_that_takes_its_time_answers_and_can_be_stopped() {
        let (sender, mut messages) = mpsc::channel(8);
        let handle = Handle(sender);
        let mut early = Early {
            instance: "edge".to_owned(),
            report: AgentReport::default(),
        };
        let asking = async {
            handle.ping().await.unwrap();
            handle.problem("metrics", Some("taken".to_owned())).await;
            let report = handle.status().await.unwrap();
            assert_eq!(report.instance, "edge");
            assert!(!report.agent.ready && report.program.is_none());
            assert_eq!(report.agent.not_ready, ["the agent is starting"]);
            assert_eq!(report.agent.problems["metrics"], "taken");
            let refused = handle.reload(model(1)).await.unwrap().unwrap_err();
            assert!(refused[0].contains("starting"), "{refused:?}");
            handle.shutdown().await
        };
        let starting = async {
            let stopped = early.attend(&mut messages, pending::<()>()).await;
            stopped.unwrap_err().send(Ok(())).unwrap();
        };
        let (answer, ()) = tokio::join!(asking, starting);
        assert_eq!(answer.unwrap(), Ok(()));
        let done = early.attend(&mut messages, std::future::ready(7)).await;
        assert_eq!(done.unwrap(), 7);
        let mut of_the_core = AgentReport {
            changes: 12,
            reconciles: 1,
            ..AgentReport::default()
        };
        early.hand_over(&mut of_the_core);
        assert!(of_the_core.problems.contains_key("metrics"));
        assert_eq!((of_the_core.changes, of_the_core.reconciles), (12, 1));
    }
}
