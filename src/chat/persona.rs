//! A user's own session with an agent.

use super::failure::stored;
use super::rooms::cap;
use super::{Chat, Done, Visit, Waiting};
use crate::domain::{Action, AgentId, Error, JoinedPersona, Message, Reply, SessionId};
use crate::hub::{FromStore, Start};
use crate::store::{HistoryPage, Missed};

/// How many messages the join brings.
const MESSAGES_MAX: u32 = 10;

impl Chat {
    /// Has the reader join the caller's own session with an agent, made where there is none; only
    /// then is it known whether the user was in it, and so whether it counts.
    pub(super) async fn join_persona(
        &self,
        visit: &mut Visit,
        agent: AgentId,
        action: Action,
    ) -> Result<Done, Error> {
        let shared = &self.shared;
        shared.answerer(&agent)?;
        let mut turn = shared.turns.take().await;
        let owner = &visit.caller.user;
        let found = shared.store.persona_session(owner, &agent).await.map_err(stored)?;
        let access = found.access.ok_or_else(|| Error::not_found("session"))?;
        let session = access.session.id.clone();
        turn.lend(self.count_join(visit, &session, action)).await?;
        self.make_room(visit, &session)?;
        // The reader's place first, then what is stored: nothing falls between the two.
        let start = Start::Now(&[]);
        let (_, entered) = self.take_place(&mut turn, visit, access, start).await?;
        let messages = match self.last_messages(&session).await {
            Ok(messages) => messages,
            Err(error) => {
                self.leave(visit, &session).await;
                return Err(error);
            }
        };
        drop(turn);
        shared.arrive(&visit.caller, &session, visit.reader.id()).await;
        let known = messages.iter().map(|message| message.id).collect();
        let upto = messages.iter().map(|message| message.ordinal).max().unwrap_or(0);
        let joined = JoinedPersona { session: session.clone(), agent, messages };
        Ok(Done {
            reply: Reply::JoinedPersona(Box::new(joined)),
            waiting: Some(Waiting {
                session,
                from_store: FromStore { known, upto, ..FromStore::default() },
                at: entered.at,
            }),
        })
    }

    /// The last messages of a session, deleted ones left out.
    async fn last_messages(&self, session: &SessionId) -> Result<Vec<Message>, Error> {
        let store = &self.shared.store;
        let newest = HistoryPage { limit: 1, ..HistoryPage::default() };
        let newest = store.history(session, &newest).await.map_err(stored)?;
        let newest = newest.and_then(|page| page.messages.into_iter().next());
        let Some(newest) = newest else { return Ok(Vec::new()) };
        let messages = store.context(session, newest.id, MESSAGES_MAX).await.map_err(stored)?;
        Ok(cap(Missed { messages, has_more: false, newest: true }).messages)
    }
}
