//! Appending what was left behind, by whichever node finds it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::{BATCH, Outbox};
use crate::domain::SessionId;
use crate::store::{Outgoing, StoreError};

/// How old a row is that any node appends.
const LEFT_BEHIND: Duration = Duration::from_secs(1);
/// How often those are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most pages of rows in one look. The next one goes on there, so that what no node of this
/// version can read does not stand before the rest for ever.
const PAGES_MAX: usize = 64;
/// How many sessions are appended to at once.
const SESSIONS_AT_ONCE: usize = 16;

impl Outbox {
    pub(super) async fn look_for_left_behind(self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = None;
        loop {
            ticks.tick().await;
            after = match self.look(after).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::debug!(%error, "read outbox");
                    None
                }
            };
        }
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
