//! Making, changing and listing sessions, and who belongs to them.

use super::{Caller, Chat};
use crate::domain::{
    Access, AgentId, Error, Member, Presence, SessionChange, SessionId, UserId, Visibility,
};
use crate::store::{SessionCursor, SessionPage};

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
impl Chat {
    /// Makes a session that the caller owns.
    pub async fn create_session(
        &self,
        _caller: &Caller,
        _wanted: WantedSession,
    ) -> Result<MadeSession, Error> {
        todo!()
    }

    /// The caller's sessions, last active first.
    pub async fn sessions(
        &self,
        _caller: &Caller,
        _after: Option<SessionCursor>,
        _limit: u32,
    ) -> Result<SessionPage, Error> {
        todo!()
    }

    /// A session that the caller may see. Never makes one.
    pub async fn session(&self, _caller: &Caller, _id: &SessionId) -> Result<Access, Error> {
        todo!()
    }

    /// Changes a session that the caller owns.
    pub async fn update_session(
        &self,
        _caller: &Caller,
        _id: &SessionId,
        _change: SessionChange,
    ) -> Result<Access, Error> {
        todo!()
    }

    /// Deletes a session that the caller owns: its readers leave it, its generations are stopped.
    pub async fn delete_session(&self, _caller: &Caller, _id: &SessionId) -> Result<(), Error> {
        todo!()
    }

    /// Who belongs to a session that the caller may see.
    pub async fn members(&self, _caller: &Caller, _id: &SessionId) -> Result<Vec<Member>, Error> {
        todo!()
    }

    /// Makes somebody a member of a session that the caller owns. `true`: they were not before.
    pub async fn add_member(
        &self,
        _caller: &Caller,
        _id: &SessionId,
        _user: UserId,
    ) -> Result<(Member, bool), Error> {
        todo!()
    }

    /// Ends a membership, as the owner or the member themself. Their sockets leave at once.
    pub async fn remove_member(
        &self,
        _caller: &Caller,
        _id: &SessionId,
        _user: &UserId,
    ) -> Result<(), Error> {
        todo!()
    }

    /// The session's members and whoever else is in it now: whether they are there, across the
    /// cluster.
    pub async fn presence(
        &self,
        _caller: &Caller,
        _id: &SessionId,
    ) -> Result<Vec<Presence>, Error> {
        todo!()
    }

    /// Closes every connection of a user, on every node. How many devices they had. The caller
    /// has to have seen to it that this is an operator.
    pub async fn disconnect(&self, _user: &UserId) -> Result<u64, Error> {
        todo!()
    }
}
