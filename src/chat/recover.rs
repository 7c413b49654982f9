//! Readers whose client has lost its connection and comes back with a new one: where they stood is
//! theirs to say, whether they may is looked up again.

use super::presence::passing;
use super::{Caller, Chat, Visit, Waiting};
use crate::adapter::News;
use crate::domain::{Cursor, Error, ErrorCode, SessionId};
use crate::hub::Start;

impl Chat {
    /// Whether a user was in all of these sessions a moment ago, and may see them still. Nothing is
    /// made, and nothing counted. Where it is not known who was in a session, everybody was: after an
    /// outage all come back at once.
    ///
    /// # Errors
    /// Where that cannot be known now.
    pub async fn may_recover(
        &self,
        caller: &Caller,
        places: &[(SessionId, Cursor)],
    ) -> Result<bool, Error> {
        let shared = &self.shared;
        if places.len() > shared.options.joined_max {
            return Ok(false);
        }
        for (session, _) in places {
            match shared.see(caller, session).await {
                Ok(_) => {}
                Err(error) if error.code == ErrorCode::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
            let window = shared.options.rejoin_window;
            let was_in = shared.adapter.was_in(session, &caller.user, window);
            let was_in = passing("read who was in", was_in).await.unwrap_or(true);
            if !was_in {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A client of the user has come back on a new connection, which `by` names as no other: its
    /// older ones are closed, on every node, as soon as these hear of it.
    pub async fn came_back(&self, caller: &Caller, client: &str, by: &str) {
        let news = News::CameBack {
            user: caller.user.clone(),
            client: client.to_owned(),
            by: by.to_owned(),
        };
        passing("tell that a client is back", self.shared.adapter.tell_all(news)).await;
    }

    /// Has a reader go on in a session exactly after `after`. To be followed by [`Chat::go_live`].
    ///
    /// # Errors
    /// `NOT_FOUND` where its user may not see the session any more; others where it may go on later.
    /// It has not joined then.
    ///
    /// # Cancel safety
    /// Dropped, the reader may have joined: [`Chat::depart`].
    pub async fn recover(
        &self,
        visit: &mut Visit,
        session: SessionId,
        after: &Cursor,
    ) -> Result<Waiting, Error> {
        let shared = &self.shared;
        let access = shared.see(&visit.caller, &session).await?;
        let (access, entered) = self.take_place(visit, access, Start::After(after)).await?;
        let cursor = Some(after).filter(|_| !entered.is_whole);
        let from_store = match self.ended_since(&access, cursor).await {
            Ok(from_store) => from_store,
            Err(error) => {
                self.leave(visit, &session).await;
                return Err(error);
            }
        };
        // Of what it was shown a part of only it is given the rest, as part of what it missed.
        let has_upto = after.ordinal.saturating_sub(u64::from(after.part > 0));
        visit.recovered.insert(session.clone(), has_upto);
        shared.arrive(&visit.caller, &session, visit.reader.id()).await;
        Ok(Waiting { session, from_store, at: entered.at })
    }
}
