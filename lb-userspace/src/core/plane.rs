//! Calls into the data plane from the core, on a thread that may wait.

use crate::dataplane::Dataplane;

/// The data plane, lent to one call at a time.
pub(super) struct Plane(Option<Box<dyn Dataplane>>);

/// A call into the data plane panicked and took it along; the maps and the program stay in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a call into the data plane has failed beyond repair; what is in force stays, start the agent again"
)]
pub struct PlaneLost;

impl Plane {
    pub(super) fn new(plane: Box<dyn Dataplane>) -> Self {
        Self(Some(plane))
    }

    /// Runs `call` on a blocking thread and gives what it gives.
    pub(super) async fn with<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut dyn Dataplane) -> T + Send + 'static,
    ) -> Result<T, PlaneLost> {
        let mut plane = self.0.take().ok_or(PlaneLost)?;
        let called = tokio::task::spawn_blocking(move || {
            let result = call(plane.as_mut());
            (plane, result)
        });
        let (plane, result) = called.await.map_err(|_| PlaneLost)?;
        self.0 = Some(plane);
        Ok(result)
    }
}
