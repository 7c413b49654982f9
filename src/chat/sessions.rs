//! Making, changing and listing sessions, and who belongs to them.

use uuid::Uuid;

use super::access::forbidden;
use super::failure::stored;
use super::limits::check_title;
use super::moderation::moderate;
use super::{Caller, Chat};
use crate::domain::{
    Access, Action, AgentId, Error, Member, Membership, Presence, SessionChange, SessionId, UserId,
    Visibility,
};
use crate::store::{MemberAdded, NewSession, SessionCursor, SessionPage};
use crate::telemetry::metrics::{self, Limit};

/// A session to be made.
#[derive(Debug, Clone, Default)]
pub struct WantedSession {
    /// Its id; made here where there is none.
    pub id: Option<SessionId>,
    /// What its frontend calls it.
    pub title: Option<String>,
    /// The agent that answers in it.
    pub agent: Option<AgentId>,
    /// Who else may see it; nobody where unset.
    pub visibility: Option<Visibility>,
}

/// What became of a [`WantedSession`].
#[derive(Debug, Clone, PartialEq)]
pub enum MadeSession {
    /// It was made.
    New(Access),
    /// The caller's own has that id; it was not changed.
    Own(Access),
    /// The id is somebody else's, or was a deleted session's.
    Taken,
}

/// # Errors
/// Every method: what the client is to be told; nothing was changed then.
///
/// # Cancel safety
/// Dropped, it may have happened; then others hear of it, if only a second later.
impl Chat {
    /// Makes a session that the caller owns.
    pub async fn create_session(
        &self,
        caller: &Caller,
        wanted: WantedSession,
    ) -> Result<MadeSession, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::CreateSession).await?;
        let WantedSession { id, title, agent, visibility } = wanted;
        self.check_session(title.as_deref(), agent.as_ref())?;
        let title = self.moderate_title(title).await?;
        let new = NewSession {
            id: id.unwrap_or_else(new_id),
            owner: caller.user.clone(),
            title,
            agent,
            visibility: visibility.unwrap_or(Visibility::Private),
        };
        let made = shared.store.create_session(&new).await.map_err(stored)?;
        Ok(match made.access {
            Some(access) if made.created => MadeSession::New(access),
            Some(access) if access.membership == Some(Membership::Owner) => {
                MadeSession::Own(access)
            }
            _ => MadeSession::Taken,
        })
    }

    /// The caller's sessions, last active first.
    pub async fn sessions(
        &self,
        caller: &Caller,
        after: Option<SessionCursor>,
        limit: u32,
    ) -> Result<SessionPage, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Read).await?;
        let limit = shared.check_page(limit)?;
        shared.store.sessions(&caller.user, after.as_ref(), limit).await.map_err(stored)
    }

    /// A session that the caller may see. Never makes one.
    pub async fn session(&self, caller: &Caller, id: &SessionId) -> Result<Access, Error> {
        self.shared.count(caller, Action::Read).await?;
        self.shared.see(caller, id).await
    }

    /// Changes a session that the caller owns.
    pub async fn update_session(
        &self,
        caller: &Caller,
        id: &SessionId,
        mut change: SessionChange,
    ) -> Result<Access, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::UpdateSession).await?;
        let title = change.title.as_ref().and_then(Option::as_deref);
        self.check_session(title, change.agent.as_ref().and_then(Option::as_ref))?;
        if let Some(title) = change.title {
            change.title = Some(self.moderate_title(title).await?);
        }
        let Access { membership, .. } = shared.owned(caller, id).await?;
        let changed = shared.store.update_session(id, &change).await.map_err(stored)?;
        let changed = changed.ok_or_else(|| Error::not_found("session"))?;
        if let Some(outgoing) = &changed.outgoing {
            shared.publish(outgoing).await;
        }
        Ok(Access { session: changed.session, membership })
    }

    /// Deletes a session that the caller owns: its readers leave it, its generations are stopped.
    pub async fn delete_session(&self, caller: &Caller, id: &SessionId) -> Result<(), Error> {
        let shared = &self.shared;
        shared.count(caller, Action::DeleteSession).await?;
        shared.owned(caller, id).await?;
        let deleted = shared.store.delete_session(id, &caller.user).await.map_err(stored)?;
        shared.publish(&deleted.ok_or_else(|| Error::not_found("session"))?).await;
        Ok(())
    }

    /// Who belongs to a session that the caller may see.
    pub async fn members(&self, caller: &Caller, id: &SessionId) -> Result<Vec<Member>, Error> {
        let shared = &self.shared;
        shared.count(caller, Action::Read).await?;
        shared.see(caller, id).await?;
        shared.store.members(id, shared.options.members_max).await.map_err(stored)
    }

    /// Makes somebody a member of a session that the caller owns. `true`: they were not before.
    pub async fn add_member(
        &self,
        caller: &Caller,
        id: &SessionId,
        user: UserId,
    ) -> Result<(Member, bool), Error> {
        let shared = &self.shared;
        shared.count(caller, Action::AddMember).await?;
        shared.owned(caller, id).await?;
        let max = shared.options.members_max;
        match shared.store.add_member(id, &user, max).await.map_err(stored)? {
            MemberAdded::New(member) => Ok((member, true)),
            MemberAdded::Already(member) => Ok((member, false)),
            MemberAdded::TooMany => {
                metrics::limited(Limit::Members).increment(1);
                Err(Error::invalid(format!("A session has at most {max} members")))
            }
            MemberAdded::NoSession => Err(Error::not_found("session")),
        }
    }

    /// Ends a membership, as the owner or the member themself. Their sockets leave at once.
    pub async fn remove_member(
        &self,
        caller: &Caller,
        id: &SessionId,
        user: &UserId,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        shared.count(caller, Action::RemoveMember).await?;
        let access = shared.see(caller, id).await?;
        match access.membership {
            Some(Membership::Owner) if *user == caller.user => {
                return Err(Error::invalid("The owner cannot leave a session, only delete it"));
            }
            Some(Membership::Owner) => {}
            Some(Membership::Member) if *user == caller.user => {}
            _ => return Err(forbidden("Only the session's owner may remove others")),
        }
        let removed = shared.store.remove_member(id, user).await.map_err(stored)?;
        shared.publish(&removed.ok_or_else(|| Error::not_found("member"))?).await;
        Ok(())
    }

    /// The session's members and whoever else is in it now: whether they are there, across the
    /// cluster.
    pub async fn presence(&self, caller: &Caller, id: &SessionId) -> Result<Vec<Presence>, Error> {
        self.shared.count(caller, Action::Read).await?;
        self.shared.see(caller, id).await?;
        self.shared.presence(id).await
    }

    /// Closes every connection of a user, on every node. How many devices they had. The caller
    /// has to have seen to it that this is an operator.
    pub async fn disconnect(&self, user: &UserId) -> Result<u64, Error> {
        self.shared.disconnect(user).await
    }

    /// A title is written by people, too.
    async fn moderate_title(&self, title: Option<String>) -> Result<Option<String>, Error> {
        match title {
            Some(title) => moderate(self.shared.options.moderation, title).await.map(Some),
            None => Ok(None),
        }
    }

    fn check_session(&self, title: Option<&str>, agent: Option<&AgentId>) -> Result<(), Error> {
        title.map_or(Ok(()), check_title)?;
        agent.map_or(Ok(()), |agent| self.shared.answerer(agent).map(drop))
    }
}

/// An id that nobody can guess.
fn new_id() -> SessionId {
    SessionId::new(Uuid::now_v7().to_string()).expect("a UUID is hexadecimal digits and dashes")
}
