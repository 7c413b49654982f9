//! Readers that ask nothing and only hear a session, as those of SSE do.

use super::{Caller, Chat, Visit, Waiting};
use crate::domain::{Action, Cursor, Error, SessionId};
use crate::hub::{FromStore, Start};

impl Chat {
    /// Has a reader that asks nothing hear a session: from now on, or exactly after `after`. What
    /// ended since, and the log has no more, is had from the store: the newest hundred answers. A
    /// session that does not exist is made, where that is allowed. To be followed by
    /// [`Chat::go_live`].
    ///
    /// # Errors
    /// What the client is to be told; the reader has not joined then.
    ///
    /// # Cancel safety
    /// Dropped, the reader may have joined: [`Chat::depart`].
    pub async fn watch(
        &self,
        visit: &mut Visit,
        session: SessionId,
        after: Option<Cursor>,
    ) -> Result<Waiting, Error> {
        let shared = &self.shared;
        shared.count(&visit.caller, Action::OpenStream).await?;
        self.make_room(visit, &session)?;
        let mut turn = shared.turns.take().await;
        let access = shared.access(&visit.caller, &session).await?;
        let start = after.as_ref().map_or(Start::Now(&[]), Start::After);
        // The reader's place first, then what is stored: nothing falls between the two.
        let (access, entered) = self.take_place(&mut turn, visit, access, start).await?;
        let missed = match after.filter(|_| !entered.is_whole) {
            Some(cursor) => self.answers_since(&access, cursor.has_upto()).await,
            None => Ok(FromStore::default()),
        };
        let from_store = match missed {
            Ok(from_store) => from_store,
            Err(error) => {
                self.leave(visit, &session).await;
                return Err(error);
            }
        };
        drop(turn);
        shared.arrive(&visit.caller, &session, visit.reader.id()).await;
        Ok(Waiting { session, from_store, at: entered.at })
    }

    /// Counts a request for a stream token, which may be bound to a session that the caller may
    /// see, or make. None is made.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn may_watch(
        &self,
        caller: &Caller,
        session: Option<&SessionId>,
    ) -> Result<(), Error> {
        self.shared.count(caller, Action::InitStream).await?;
        match session {
            Some(session) => self.shared.may_access(caller, session).await,
            None => Ok(()),
        }
    }
}
