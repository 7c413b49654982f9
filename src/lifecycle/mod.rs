//! The life of the process and of its tasks: who owns a task, how it is told to stop, whether the
//! node takes work, and what a shutdown waits for.
//!
//! States of a node: starting → ready → draining → stopped. It knows no other module.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The owner of a group of tasks. Dropping it does not stop them; [`Tasks::shutdown`] does.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` as one of the group. It has to end by itself soon after [`Tasks::stopping`]
    /// says so; a panic in it is logged by the runtime and ends that task only.
    #[expect(clippy::disallowed_methods, reason = "the one place that tasks are spawned")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(task));
    }

    /// Cancelled when the group is told to stop. Child tokens of it may stop earlier.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until none runs, without telling them to stop. `false` where `within` was not enough.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost, call it again.
    pub async fn finished(&self, within: Duration) -> bool {
        self.tracker.close();
        let finished = tokio::time::timeout(within, self.tracker.wait()).await.is_ok();
        self.tracker.reopen();
        finished
    }

    /// Tells all to stop and waits for them. `false` where `within` was not enough; those left
    /// are abandoned to the runtime's own shutdown.
    pub async fn shutdown(&self, within: Duration) -> bool {
        self.stop.cancel();
        self.finished(within).await
    }
}

/// Whether the node takes work. Starting until [`Readiness::started`], draining from
/// [`Readiness::drain`] on.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    started: CancellationToken,
    draining: CancellationToken,
}

impl Readiness {
    /// Everything is up.
    pub fn started(&self) {
        self.started.cancel();
    }

    /// No more work is to be sent here. There is no way back.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether [`Readiness::started`] was said.
    pub fn is_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Whether [`Readiness::drain`] was said.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}
