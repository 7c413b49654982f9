//! Showing this node's own readers what cannot be appended now, in the order of the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Outbox;
use crate::domain::SessionId;
use crate::store::Outgoing;

/// Of how many sessions it is remembered how far they were shown; of others it is read once more.
const SESSIONS_MAX: usize = 4096;

/// How many revisions back it is looked for what was not heard of: what is older than the last events
/// that a tail knows by their ids would be shown twice.
const LOOK_BACK: u64 = 256;

/// Up to which revision this node's readers were shown what the log does not have.
#[derive(Default)]
pub(super) struct ShownHere(Mutex<HashMap<SessionId, u64>>);

impl ShownHere {
    fn upto(&self, session: &SessionId) -> u64 {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(session).copied().unwrap_or(0)
    }

    fn reaches(&self, session: &SessionId, revision: u64) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() >= SESSIONS_MAX && !shown.contains_key(session) {
            shown.clear();
        }
        let upto = shown.entry(session.clone()).or_default();
        *upto = revision.max(*upto);
    }
}

impl Outbox {
    /// Shows an event to this node's own readers, after what was stored before it of late, here or
    /// elsewhere: they may not have heard that either. What they have is recognised by its id.
    pub(super) async fn show(&self, outgoing: &Outgoing) {
        let Outgoing { session, revision, event } = outgoing;
        let upto = self.shown.upto(session).max(revision.saturating_sub(LOOK_BACK + 1));
        if upto + 1 < *revision {
            match self.store.told_between(session, upto, *revision).await {
                Ok(earlier) => {
                    for earlier in earlier {
                        self.adapter.show_event(session, Arc::new(earlier.event));
                    }
                }
                Err(error) => tracing::debug!(%session, %error, "read what comes before"),
            }
        }
        self.adapter.show_event(session, Arc::new(event.clone()));
        self.shown.reaches(session, *revision);
    }
}
