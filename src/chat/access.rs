//! Who may see a session. To everybody else it does not exist: the answer for a foreign id is
//! that for an id that does not exist and may not be created.

use super::{Caller, Shared, stored};
use crate::domain::{Access, Error, Membership, SessionId, Visibility};
use crate::store::NewSession;

impl Shared {
    /// The session, where the caller may see it; made for them where it does not exist and may be
    /// created.
    pub(super) async fn access(&self, caller: &Caller, id: &SessionId) -> Result<Access, Error> {
        let found = self.store.access(id, &caller.user).await.map_err(stored)?;
        if let Some(access) = found {
            return visible(access);
        }
        if !self.options.auto_create_sessions {
            return Err(unknown());
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
        created.access.ok_or_else(unknown).and_then(visible)
    }

    /// The session, where it exists and the caller may see it.
    pub(super) async fn see(&self, caller: &Caller, id: &SessionId) -> Result<Access, Error> {
        let found = self.store.access(id, &caller.user).await.map_err(stored)?;
        found.ok_or_else(unknown).and_then(visible)
    }
}

fn visible(access: Access) -> Result<Access, Error> {
    let may = match access.membership {
        Some(Membership::Owner | Membership::Member) => true,
        None => access.session.visibility == Visibility::Open,
    };
    if may { Ok(access) } else { Err(unknown()) }
}

fn unknown() -> Error {
    Error::not_found("session")
}
