//! Appending what was left behind, or what a log has lost, by whichever node finds it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::{BATCH, DeliverError, Outbox};
use crate::domain::SessionId;
use crate::store::{Outgoing, StoreError};

/// How old a row is that any node appends.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// How often those are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most pages of rows in one look. The next one goes on there, so that what no node of this
/// version can read does not stand before the rest for ever.
const PAGES_MAX: usize = 64;
/// The most sessions whose logs are looked at after a reconnect, the latest first.
const SESSIONS_MAX: u32 = 10_000;
/// How many sessions are appended to at once.
const SESSIONS_AT_ONCE: usize = 16;

impl Outbox {
    pub(super) async fn look_for_left_behind(self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = None;
        let mut reconnects = 0;
        loop {
            ticks.tick().await;
            let count = self.adapter.reconnects();
            if count != reconnects && self.adapter.is_up() {
                match self.tell_again().await {
                    Ok(()) => reconnects = count,
                    Err(error) => tracing::debug!(%error, "append what a log lacks"),
                }
            }
            after = match self.look(after).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::debug!(%error, "read outbox");
                    None
                }
            };
        }
    }

    /// Appends what was appended a moment ago to logs that do not have it any more. One session
    /// that cannot be appended to does not stand before the others; an error says that there was
    /// one, or that the adapter went away.
    async fn tell_again(&self) -> Result<(), DeliverError> {
        let told = self.store.last_told(SESSIONS_MAX).await?;
        let mut done = stream::iter(told)
            .map(|(session, newest)| async move {
                let last = self.adapter.revision(&session).await?;
                if last >= newest {
                    return Ok(());
                }
                tracing::info!(%session, last, newest, "the log lacks what was appended to it");
                self.append_between(&session, last, newest + 1).await
            })
            .buffer_unordered(SESSIONS_AT_ONCE);
        let mut failed = None;
        while let Some(done) = done.next().await {
            if let Err(error) = done {
                failed.get_or_insert(error);
                if !self.adapter.is_up() {
                    break;
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Appends what stands behind row `after`, or from the first one on. Where to go on; `None`:
    /// from the start.
    async fn look(&self, mut after: Option<i64>) -> Result<Option<i64>, StoreError> {
        let mut failed = HashSet::new();
        for _ in 0..PAGES_MAX {
            // While Redis is away each try would only wait for its timeout.
            if !self.adapter.is_up() {
                return Ok(None);
            }
            let page = self.store.outbox(LEFT_BEHIND, after, BATCH).await?;
            failed.extend(self.relay(page.rows, &failed).await);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(after)
    }

    /// Appends rows, those of a session one after the other. The sessions where that failed: what
    /// follows there would overtake it.
    async fn relay(&self, rows: Vec<Outgoing>, failed: &HashSet<SessionId>) -> Vec<SessionId> {
        let mut sessions: HashMap<SessionId, Vec<Outgoing>> = HashMap::new();
        for row in rows.into_iter().filter(|row| !failed.contains(&row.session)) {
            sessions.entry(row.session.clone()).or_default().push(row);
        }
        let relayed = stream::iter(sessions).map(|(session, rows)| async move {
            for row in &rows {
                // Not blindly: rows before it may have been passed over, or be younger.
                if let Err(error) = self.deliver(row).await {
                    tracing::debug!(%session, %error, "deliver what was left behind");
                    return Some(session);
                }
            }
            None
        });
        relayed
            .buffer_unordered(SESSIONS_AT_ONCE)
            .filter_map(|failed| async { failed })
            .collect()
            .await
    }
}
