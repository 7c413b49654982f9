//! The node's lease on what it runs: one heartbeat for all of it, which nothing may hold up, and
//! what it says of how sure the node may be.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::store::Heartbeat;
use crate::telemetry::metrics;

/// How often a node says that it lives.
pub(super) const BEAT_EVERY: Duration = Duration::from_millis(500);
/// A node that has not said so for this long is dead, by the database's clock.
pub(super) const DEAD_AFTER: Duration = Duration::from_millis(2500);
/// A heartbeat that takes longer is given up, and given again.
const BEAT_WITHIN: Duration = Duration::from_secs(1);
/// How soon it is given again that failed.
const BEAT_AGAIN: Duration = Duration::from_millis(100);

/// How this node's heartbeats went, by its own clock.
#[derive(Default)]
pub(super) struct Lease(Mutex<Beats>);

#[derive(Default)]
struct Beats {
    /// The first of those that succeeded without a failure or a lapse in between.
    since: Option<Instant>,
    /// The last that succeeded.
    last: Option<Instant>,
}

impl Lease {
    /// A heartbeat that was begun then has succeeded now. `true` where the lease had lapsed: what
    /// the node runs may be another's by now.
    fn renewed(&self, begun: Instant) -> bool {
        let mut beats = self.beats();
        let lapsed = beats.last.is_some_and(|last| last.elapsed() >= DEAD_AFTER);
        if lapsed {
            beats.since = None;
        }
        beats.since.get_or_insert(begun);
        beats.last = Some(begun);
        lapsed
    }

    /// After an outage all nodes look dead until they have beaten again.
    fn failed(&self) {
        self.beats().since = None;
    }

    /// Whether the heartbeats have succeeded for a whole lease: the others', which were given to
    /// the same database, have had time to be seen.
    pub(super) fn is_whole(&self) -> bool {
        let beats = self.beats();
        let is_whole = beats.since.is_some_and(|since| since.elapsed() >= DEAD_AFTER);
        is_whole && beats.last.is_some_and(|last| last.elapsed() < DEAD_AFTER)
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the node lives, until `stop`: after it no heartbeat is on its way.
pub(super) async fn beat(shared: &Shared, stop: &CancellationToken) {
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = shared.beat_now.notified() => {}
        }
        let begun = Instant::now();
        let heartbeat = heartbeat(shared);
        let given = match timeout(BEAT_WITHIN, shared.store.heartbeat(&heartbeat)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "heartbeat");
                false
            }
            Err(_) => {
                tracing::debug!("heartbeat: it takes long");
                false
            }
        };
        metrics::handles().db_up.set(f64::from(u8::from(given)));
        if !given {
            shared.lease.failed();
            ticks.reset_after(BEAT_AGAIN);
        } else if shared.lease.renewed(begun) {
            tracing::warn!("the lease had lapsed: asking whose the generations are");
            shared.doubt();
        }
    }
}

fn heartbeat(shared: &Shared) -> Heartbeat {
    let options = &shared.options;
    Heartbeat {
        node: options.node,
        address: options.address.clone(),
        role: options.role,
        redis_up: options.shares_log && shared.adapter.is_up(),
        running: u32::try_from(shared.running().len()).unwrap_or(u32::MAX),
        running_max: u32::try_from(options.running_max).unwrap_or(u32::MAX),
        draining: shared.draining.is_cancelled(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_whole_after_as_long_as_makes_a_node_dead() {
        let lease = Lease::default();
        for _ in 0..5 {
            assert!(!lease.renewed(Instant::now()) && !lease.is_whole());
            advance(BEAT_EVERY).await;
        }
        assert!(lease.is_whole());
        lease.failed();
        assert!(!lease.renewed(Instant::now()), "it was short");
        assert!(!lease.is_whole());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_lapsed_is_doubted_and_begins_anew() {
        let lease = Lease::default();
        lease.renewed(Instant::now());
        advance(DEAD_AFTER).await;
        assert!(!lease.is_whole(), "nothing was heard for as long");
        assert!(lease.renewed(Instant::now()));
        assert!(!lease.is_whole());
        // One that was frozen while the database answered: that answer is old.
        let begun = Instant::now();
        advance(DEAD_AFTER * 2).await;
        assert!(lease.renewed(begun) && !lease.is_whole());
        assert!(lease.renewed(Instant::now()) && !lease.is_whole());
    }
}
