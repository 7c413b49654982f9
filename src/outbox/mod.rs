//! From the store to the log: what was stored is appended, and then deleted from the outbox.
//!
//! Whoever stores something appends its events at once ([`Outbox::deliver`],
//! [`Outbox::deliver_or_show`]). What stays behind, because Redis was away or a node died in
//! between, is appended by any node once it is a second old. The events of a session are appended
//! in the order of their revisions, whichever nodes append them. An event may be appended twice;
//! readers know it by its id.
//!
//! A log may lose what was appended last: Redis comes back empty, or a replica takes over that was
//! behind. So what was appended is kept for a minute, and after each reconnect what a log lacks of
//! it is appended again.

mod relay;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::adapter::{AdapterError, Earlier, SharedAdapter, StoredAppended};
use crate::domain::{EventId, Position, SessionId};
use crate::lifecycle::Tasks;
use crate::store::{Outgoing, SharedStore, StoreError};

use shown::ShownHere;

/// The most rows appended or deleted in one go.
const BATCH: u32 = 256;
/// The most appended rows waiting to be deleted; further ones are found left behind, and appended
/// again.
const DONE_MAX: usize = 4096;

/// An event could not be appended to its log now: it stays in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The log did not take it, or one before it.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// It could not be read what comes before it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log wants what comes before it, which was seen to.
    #[error("deliver event: the log has the stored events up to {last} only")]
    Early {
        /// The highest revision that the log has.
        last: u64,
    },
}

/// Who hears of a stored event now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Every reader: it stands in the log.
    Everywhere,
    /// This node's readers; the others as soon as it can be appended.
    HereOnly,
}

/// The outbox of one node.
#[derive(Clone)]
pub struct Outbox {
    store: SharedStore,
    adapter: SharedAdapter,
    done: mpsc::Sender<EventId>,
    shown: Arc<ShownHere>,
}

impl Outbox {
    /// Starts the tasks that delete what was appended and append what was left behind.
    pub fn start(store: SharedStore, adapter: SharedAdapter, tasks: &Tasks) -> Self {
        let (done, rows) = mpsc::channel(DONE_MAX);
        let outbox = Self { store: store.clone(), adapter, done, shown: Arc::default() };
        tasks.spawn(delete(store, rows, tasks.stopping().clone()));
        let stop = tasks.stopping().clone();
        let own = outbox.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(own.look_for_left_behind()).await;
        });
        outbox
    }

    /// Appends one event of the outbox to its log, after what the outbox holds before it of the
    /// same session. They are deleted a moment later.
    ///
    /// # Errors
    /// Where it cannot be appended now: it stays in the outbox.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not be appended; it stays in the outbox.
    pub async fn deliver(&self, outgoing: &Outgoing) -> Result<Position, DeliverError> {
        let last = match self.append(outgoing, Earlier::Required).await? {
            StoredAppended::At(position) => return Ok(position),
            StoredAppended::Early { last } => last,
        };
        self.append_between(&outgoing.session, last, outgoing.revision).await?;
        match self.append(outgoing, Earlier::SeenTo).await? {
            StoredAppended::At(position) => Ok(position),
            StoredAppended::Early { last } => Err(DeliverError::Early { last }),
        }
    }

    /// For whoever stores something and then answers a client: appends its event, unless that
    /// takes longer than `within` or the adapter is known to be away. Then only this node's own
    /// readers are shown it, and it is left to be appended later.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not be appended or shown; it stays in the outbox, and so is not
    /// lost.
    pub async fn deliver_or_show(&self, outgoing: &Outgoing, within: Duration) -> Delivered {
        if self.adapter.is_up() {
            match timeout(within, self.deliver(outgoing)).await {
                Ok(Ok(_)) => return Delivered::Everywhere,
                Ok(Err(error)) => {
                    tracing::debug!(session = %outgoing.session, %error, "deliver");
                }
                Err(_) => tracing::debug!(session = %outgoing.session, "deliver: it takes long"),
            }
        }
        self.show(outgoing).await;
        Delivered::HereOnly
    }

    /// Appends what the outbox holds of a session between two revisions, both left out, and
    /// what it held a moment ago: the log may have lost that. What is older is in the log, or is
    /// gone with it; what this build cannot read is left to a node that can, and comes late.
    async fn append_between(
        &self,
        session: &SessionId,
        mut after: u64,
        before: u64,
    ) -> Result<(), DeliverError> {
        while after + 1 < before {
            let page = self.store.told_between(session, after, before).await?;
            let Some(newest) = page.last().map(|earlier| earlier.revision) else { break };
            for earlier in &page {
                if let StoredAppended::Early { last } =
                    self.append(earlier, Earlier::SeenTo).await?
                {
                    return Err(DeliverError::Early { last });
                }
            }
            after = newest;
        }
        Ok(())
    }

    async fn append(
        &self,
        outgoing: &Outgoing,
        earlier: Earlier,
    ) -> Result<StoredAppended, AdapterError> {
        let Outgoing { session, revision, event } = outgoing;
        let event = Arc::new(event.clone());
        let id = event.id;
        let appended = self.adapter.append_stored(session, *revision, event, earlier).await?;
        if matches!(appended, StoredAppended::At(_)) {
            // Full: the row is found left behind, appended again, and recognised by its id.
            let _ = self.done.try_send(id);
        }
        Ok(appended)
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
