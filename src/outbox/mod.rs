//! From the store to the log: what was stored is appended, and then deleted from the outbox.
//!
//! Whoever stores something appends its events at once ([`Outbox::deliver`]). What stays behind,
//! because Redis was away or a node died in between, is appended by any node once it is a second
//! old. An event may so be appended twice; readers know it by its id.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::adapter::{AdapterError, SharedAdapter};
use crate::domain::{EventId, Position};
use crate::lifecycle::Tasks;
use crate::store::{Outgoing, SharedStore};

/// How old a row is that any node appends.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// How often those are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most rows appended or deleted in one go.
const BATCH: u32 = 256;
/// The most appended rows waiting to be deleted; further ones are found left behind, and appended
/// again.
const DONE_MAX: usize = 4096;

/// The outbox of one node.
#[derive(Clone)]
pub struct Outbox {
    adapter: SharedAdapter,
    done: mpsc::Sender<EventId>,
}

impl Outbox {
    /// Starts the tasks that delete what was appended and append what was left behind.
    pub fn start(store: SharedStore, adapter: SharedAdapter, tasks: &Tasks) -> Self {
        let (done, rows) = mpsc::channel(DONE_MAX);
        let outbox = Self { adapter, done };
        tasks.spawn(delete(store.clone(), rows, tasks.stopping().clone()));
        let stop = tasks.stopping().clone();
        let relay = outbox.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(relay.look_for_left_behind(store)).await;
        });
        outbox
    }

    /// Appends one event of the outbox to its log. It is deleted a moment later.
    ///
    /// # Errors
    /// Where it cannot be appended now: it stays in the outbox.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not be appended; it stays in the outbox.
    pub async fn deliver(&self, outgoing: &Outgoing) -> Result<Position, AdapterError> {
        let event = Arc::new(outgoing.event.clone());
        let position = self.adapter.append_event(&outgoing.session, event).await?;
        // Full: the row is found left behind, appended again, and recognised by its id.
        let _ = self.done.try_send(outgoing.event.id);
        Ok(position)
    }

    async fn look_for_left_behind(self, store: SharedStore) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.adapter.is_up() {
                continue;
            }
            let rows = match store.outbox(LEFT_BEHIND, None, BATCH).await {
                Ok(page) => page.rows,
                Err(error) => {
                    tracing::debug!(%error, "read outbox");
                    continue;
                }
            };
            for outgoing in &rows {
                if let Err(error) = self.deliver(outgoing).await {
                    // Those after it would overtake it.
                    tracing::debug!(%error, "deliver what was left behind");
                    break;
                }
            }
        }
    }
}

/// Deletes in batches what was appended, until told to stop and nothing is left.
async fn delete(store: SharedStore, mut rows: mpsc::Receiver<EventId>, stop: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            received = rows.recv_many(&mut batch, BATCH as usize) => {
                if received == 0 {
                    return;
                }
            }
            () = stop.cancelled(), if !rows.is_closed() => {
                rows.close();
                continue;
            }
        }
        if let Err(error) = store.delete_outgoing(&batch).await {
            tracing::debug!(%error, "delete from outbox");
        }
        batch.clear();
    }
}
