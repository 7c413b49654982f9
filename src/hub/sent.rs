//! How many bytes of each running answer's events this node's readers were given.

use std::sync::Weak;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use super::tail::Tail;
use crate::dialect::Frame;
use crate::domain::GenerationId;

/// The most answers of a session that are counted between two reports; of one more, nothing is.
const COUNTED_MAX: usize = 64;
/// How many tails report at once.
const TAILS_AT_ONCE: usize = 64;

/// What was given and not reported yet.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<(GenerationId, u64)>);

impl Sent {
    /// A reader took these.
    pub(super) fn add(&mut self, generation: GenerationId, frames: &[Frame]) {
        let bytes = |frame: &Frame| (frame.event.len() + frame.payload.get().len()) as u64;
        self.count(generation, frames.iter().map(bytes).sum());
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (generation, bytes) in other.0 {
            self.count(generation, bytes);
        }
    }

    fn count(&mut self, generation: GenerationId, bytes: u64) {
        if let Some((_, sent)) = self.0.iter_mut().find(|(counted, _)| *counted == generation) {
            *sent += bytes;
        } else if self.0.len() < COUNTED_MAX {
            self.0.push((generation, bytes));
        }
    }
}

/// Reports what was given, at intervals; of an answer that has ended the rest with the next one.
/// Ends with the hub.
pub(super) async fn watch_over(watched: Weak<Shared>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = watched.upgrade() else { return };
        // While Redis is away each try would only wait for its timeout.
        if shared.adapter.is_up() {
            let tails = shared.all_tails();
            stream::iter(&tails)
                .for_each_concurrent(TAILS_AT_ONCE, |tail| report(&shared, tail))
                .await;
        }
    }
}

/// Reports what was given of a session. What cannot be reported is lost.
pub(super) async fn report(shared: &Shared, tail: &Tail) {
    let Sent(sent) = std::mem::take(&mut tail.state().members.sent);
    for (generation, bytes) in sent {
        if let Err(error) = shared.adapter.add_sent(&tail.session, generation, bytes).await {
            tracing::debug!(session = %tail.session, %error, "count what was sent");
        }
    }
}
