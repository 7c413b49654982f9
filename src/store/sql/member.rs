//! Who belongs to a session, and how far they have read.

use super::Pool;
use crate::domain::{Member, MessageId, SessionId, UserId};
use crate::store::{MemberAdded, Outgoing, Seen};

pub(super) async fn all(_pool: &Pool, _id: &SessionId, _limit: u32) -> sqlx::Result<Vec<Member>> {
    todo!()
}

pub(super) async fn add(
    _pool: &Pool,
    _id: &SessionId,
    _user: &UserId,
    _max: u32,
) -> sqlx::Result<MemberAdded> {
    todo!()
}

pub(super) async fn remove(
    _pool: &Pool,
    _id: &SessionId,
    _user: &UserId,
) -> sqlx::Result<Option<Outgoing>> {
    todo!()
}

pub(super) async fn see(
    _pool: &Pool,
    _session: &SessionId,
    _id: MessageId,
    _user: &UserId,
) -> sqlx::Result<Seen> {
    todo!()
}
