//! Readers whose client has lost its connection and comes back with a new one: where they stood is
//! theirs to say, whether they may is looked up again.

use super::presence::passing;
use super::{Caller, Chat, Visit, Waiting};
use crate::adapter::News;
use crate::domain::{Access, Cursor, Error, ErrorCode, SessionId};
use crate::hub::{FromStore, Start};

/// What a reader is owed that comes back to a session.
#[derive(Debug, Clone)]
pub struct Owed {
    /// The session, and what its user is in it; looked up again before anything of it is shown.
    pub access: Access,
    /// What came after this.
    pub after: Cursor,
}

impl Chat {
    /// Whether a user was in all of these sessions a moment ago, and may see them still: what they
    /// are owed. `None` where not. Nothing is made, and nothing counted. Where it is not known who
    /// was in a session, everybody was: after an outage all come back at once.
    ///
    /// # Errors
    /// Where that cannot be known now.
    pub async fn owed(
        &self,
        caller: &Caller,
        places: &[(SessionId, Cursor)],
    ) -> Result<Option<Vec<Owed>>, Error> {
        let shared = &self.shared;
        if places.len() > shared.options.joined_max {
            return Ok(None);
        }
        let mut turn = shared.turns.take().await;
        let mut owed = Vec::with_capacity(places.len());
        for (session, after) in places {
            let access = match shared.see(caller, session).await {
                Ok(access) => access,
                Err(error) if error.code == ErrorCode::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let window = shared.options.rejoin_window;
            let was_in = shared.adapter.was_in(session, &caller.user, window);
            if !turn.lend(passing("read who was in", was_in)).await.unwrap_or(true) {
                return Ok(None);
            }
            owed.push(Owed { access, after: after.clone() });
        }
        Ok(Some(owed))
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
        access: Access,
        after: &Cursor,
    ) -> Result<Waiting, Error> {
        let shared = &self.shared;
        let session = access.session.id.clone();
        let mut turn = shared.turns.take().await;
        let start = Start::After(after);
        let (access, entered) = self.take_place(&mut turn, visit, access, start).await?;
        let missed = match entered.is_whole {
            true => Ok(FromStore::default()),
            false => self.missed_since(&access, after.has_upto()).await,
        };
        let from_store = match missed {
            Ok(from_store) => from_store,
            Err(error) => {
                self.leave(visit, &session).await;
                return Err(error);
            }
        };
        drop(turn);
        // Of what it was shown a part of only it is given the rest, as part of what it missed.
        visit.recovered.insert(session.clone(), after.has_upto());
        shared.arrive(&visit.caller, &session, visit.reader.id()).await;
        Ok(Waiting { session, from_store, at: entered.at })
    }
}
