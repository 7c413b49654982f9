//! Who may see a session and change what. To everybody who may not see it, it does not exist: the
//! answer for a foreign or deleted session, message, stream or attachment is that for one that
//! never was. Only who sees something is told that it is not theirs to change.

use super::failure::stored;
use super::{Caller, Shared};
use crate::domain::{
    Access, Author, Error, ErrorCode, Generation, GenerationId, Membership, MessageId, Reply,
    SessionId, UserId, Visibility,
};
use crate::hub::Standing;
use crate::store::{FoundMessage, NewSession};

impl Shared {
    /// The session, where the caller may see it; made for them where it does not exist and may be
    /// created.
    pub(super) async fn access(&self, caller: &Caller, id: &SessionId) -> Result<Access, Error> {
        let found = self.store.access(id, &caller.user).await.map_err(stored)?;
        if let Some(access) = found {
            return visible(access, "session");
        }
        if !self.options.auto_create_sessions {
            return Err(Error::not_found("session"));
        }
        let new = NewSession {
            id: id.clone(),
            owner: caller.user.clone(),
            title: None,
            agent: None,
            visibility: Visibility::Private,
        };
        // Somebody else may have made it in between, or a deleted session may have the id.
        let created = self.store.create_session(&new).await.map_err(stored)?;
        let access = created.access.ok_or_else(|| Error::not_found("session"))?;
        visible(access, "session")
    }

    /// Whether the caller may see the session, or it does not exist and may be made. Makes none.
    /// An id that a deleted session has kept is refused only by whoever would make it.
    pub(super) async fn may_access(&self, caller: &Caller, id: &SessionId) -> Result<(), Error> {
        match self.store.access(id, &caller.user).await.map_err(stored)? {
            Some(access) => visible(access, "session").map(drop),
            None if self.options.auto_create_sessions => Ok(()),
            None => Err(Error::not_found("session")),
        }
    }

    /// The session, where it exists and the caller may see it.
    pub(super) async fn see(&self, caller: &Caller, id: &SessionId) -> Result<Access, Error> {
        let found = self.store.access(id, &caller.user).await.map_err(stored)?;
        visible(found.ok_or_else(|| Error::not_found("session"))?, "session")
    }

    /// The session, where the caller owns it.
    pub(super) async fn owned(&self, caller: &Caller, id: &SessionId) -> Result<Access, Error> {
        owned(self.see(caller, id).await?)
    }

    /// The message, where the caller may see it, deleted or not.
    pub(super) async fn message(
        &self,
        caller: &Caller,
        id: MessageId,
    ) -> Result<FoundMessage, Error> {
        self.message_of(caller, id, "message").await
    }

    /// The message, where the caller may see it and it was not deleted.
    pub(super) async fn live_message(
        &self,
        caller: &Caller,
        id: MessageId,
    ) -> Result<FoundMessage, Error> {
        let found = self.message(caller, id).await?;
        live(found, "message")
    }

    /// The message, where the caller wrote it and it was not deleted. What an agent wrote is
    /// nobody's.
    pub(super) async fn own_message(
        &self,
        caller: &Caller,
        id: MessageId,
    ) -> Result<FoundMessage, Error> {
        editable(caller, self.message(caller, id).await?)
    }

    /// The message, where the caller may delete it or a part of it, which is told as `what` where
    /// there is none, and it was not deleted.
    pub(super) async fn removable_message(
        &self,
        caller: &Caller,
        id: MessageId,
        what: &str,
    ) -> Result<FoundMessage, Error> {
        removable(caller, self.message_of(caller, id, what).await?, what)
    }

    /// The generation, where the caller may see its session.
    pub(super) async fn generation(
        &self,
        caller: &Caller,
        id: GenerationId,
    ) -> Result<Generation, Error> {
        let unknown = || Error::not_found("stream");
        let generation = self.store.generation(id).await.map_err(stored)?.ok_or_else(unknown)?;
        let session = &generation.session;
        let found = self.store.access(session, &caller.user).await.map_err(stored)?;
        visible(found.ok_or_else(unknown)?, "stream")?;
        Ok(generation)
    }

    async fn message_of(
        &self,
        caller: &Caller,
        id: MessageId,
        what: &str,
    ) -> Result<FoundMessage, Error> {
        let found = self.store.message(id, &caller.user).await.map_err(stored)?;
        let FoundMessage { message, access } = found.ok_or_else(|| Error::not_found(what))?;
        Ok(FoundMessage { message, access: visible(access, what)? })
    }
}

/// Whoever has said who they are says the same again.
pub(super) fn identify(caller: &Caller, user: &UserId) -> Result<Reply, Error> {
    if *user == caller.user {
        Ok(Reply::Identified { user: user.clone() })
    } else {
        Err(Error::new(ErrorCode::Auth, "userId is not that of this connection"))
    }
}

/// What the caller is in a session that they may see.
pub(super) fn standing(access: &Access) -> Standing {
    match access.membership {
        Some(Membership::Owner | Membership::Member) => Standing::Belongs,
        None => Standing::Guest,
    }
}

pub(super) fn forbidden(message: &str) -> Error {
    Error::new(ErrorCode::Forbidden, message)
}

fn visible(access: Access, what: &str) -> Result<Access, Error> {
    let may = match access.membership {
        Some(Membership::Owner | Membership::Member) => true,
        None => access.session.visibility == Visibility::Open,
    };
    if may { Ok(access) } else { Err(Error::not_found(what)) }
}

fn owned(access: Access) -> Result<Access, Error> {
    match access.membership {
        Some(Membership::Owner) => Ok(access),
        _ => Err(forbidden("Only the session's owner may do that")),
    }
}

fn editable(caller: &Caller, found: FoundMessage) -> Result<FoundMessage, Error> {
    let found = live(found, "message")?;
    if is_author(caller, &found) {
        Ok(found)
    } else {
        Err(forbidden("Only the message's author may do that"))
    }
}

fn removable(caller: &Caller, found: FoundMessage, what: &str) -> Result<FoundMessage, Error> {
    let found = live(found, what)?;
    if found.access.membership == Some(Membership::Owner) || is_author(caller, &found) {
        Ok(found)
    } else {
        Err(forbidden("Only the message's author or the session's owner may do that"))
    }
}

fn live(found: FoundMessage, what: &str) -> Result<FoundMessage, Error> {
    if found.message.deleted_at.is_none() { Ok(found) } else { Err(Error::not_found(what)) }
}

fn is_author(caller: &Caller, found: &FoundMessage) -> bool {
    found.message.author == Author::User && found.message.user.as_ref() == Some(&caller.user)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{access, caller, message};
    use super::*;
    use crate::domain::Timestamp;

    const ROLES: [Option<Membership>; 3] =
        [Some(Membership::Owner), Some(Membership::Member), None];

    /// What the caller, `ada`, is told: nothing, or an error's code.
    fn told<T>(result: Result<T, Error>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    fn found(membership: Option<Membership>, by: &str, author: Author) -> FoundMessage {
        let mut message = message(1, 1);
        message.author = author;
        message.user = Some(UserId::new(by).unwrap());
        FoundMessage { message, access: access(membership, Visibility::Open) }
    }

    #[test]
    fn a_private_session_is_there_for_those_who_belong_to_it_only() {
        use Visibility::{Open, Private};
        let seen =
            |visibility| ROLES.map(|role| told(visible(access(role, visibility), "session")));
        assert_eq!(seen(Private), [None, None, Some(ErrorCode::NotFound)]);
        assert_eq!(seen(Open), [None, None, None]);
        let refused = visible(access(None, Private), "stream");
        assert_eq!(refused, Err(Error::not_found("stream")), "as if there were none");
        let standings = ROLES.map(|role| standing(&access(role, Open)));
        assert_eq!(standings, [Standing::Belongs, Standing::Belongs, Standing::Guest]);
    }

    #[test]
    fn a_session_is_its_owners_to_change() {
        let forbidden = Some(ErrorCode::Forbidden);
        let told = ROLES.map(|role| told(owned(access(role, Visibility::Open))));
        assert_eq!(told, [None, forbidden, forbidden]);
    }

    #[test]
    fn a_message_is_its_authors_to_change_and_the_owners_to_delete() {
        let (ada, forbidden) = (caller(), Some(ErrorCode::Forbidden));
        let edited = |by, author| ROLES.map(|role| told(editable(&ada, found(role, by, author))));
        let removed = |by, author| {
            ROLES.map(|role| told(removable(&ada, found(role, by, author), "message")))
        };
        assert_eq!(edited("ada", Author::User), [None, None, None]);
        assert_eq!(edited("bob", Author::User), [forbidden; 3]);
        assert_eq!(edited("ada", Author::Assistant), [forbidden; 3], "an answer is nobody's");
        assert_eq!(removed("ada", Author::User), [None, None, None]);
        assert_eq!(removed("bob", Author::User), [None, forbidden, forbidden]);
        assert_eq!(removed("ada", Author::Assistant), [None, forbidden, forbidden]);
    }

    #[test]
    fn a_deleted_message_is_not_found_by_whoever_would_change_it() {
        let ada = caller();
        let deleted = || {
            let mut found = found(Some(Membership::Owner), "ada", Author::User);
            found.message.deleted_at = Some(Timestamp::from_millis(1));
            found
        };
        assert_eq!(editable(&ada, deleted()), Err(Error::not_found("message")));
        assert_eq!(removable(&ada, deleted(), "attachment"), Err(Error::not_found("attachment")));
        assert_eq!(live(deleted(), "message"), Err(Error::not_found("message")));
    }
}
