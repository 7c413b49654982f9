//! Sessions in which a socket's task has something to do, as the hub tells it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::domain::SessionId;

/// Each is in it once; one task waits for them. At most as many as the socket has joined.
#[derive(Debug, Default)]
pub(super) struct Due {
    sessions: Mutex<VecDeque<SessionId>>,
    has_some: Notify,
}

impl Due {
    pub(super) fn add(&self, session: &SessionId) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if !sessions.contains(session) {
            sessions.push_back(session.clone());
            self.has_some.notify_one();
        }
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&self) -> SessionId {
        loop {
            let first = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(session) = first {
                return session;
            }
            self.has_some.notified().await;
        }
    }
}
