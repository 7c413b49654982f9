//! Sessions and who is in them.

use super::{Db, Pool, Time, Transaction, begin, row};
use crate::domain::{Access, Membership, Session, SessionChange, SessionId, Timestamp, UserId};
use crate::store::{
    CreatedSession, NewSession, Outgoing, SessionChanged, SessionCursor, SessionPage,
};

#[derive(sqlx::FromRow)]
struct AccessRow {
    owner_id: String,
    title: Option<String>,
    agent_id: Option<String>,
    visibility: String,
    member_count: i64,
    last_message_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
    role: Option<String>,
}

impl AccessRow {
    fn read(self, id: &SessionId) -> sqlx::Result<Access> {
        let membership = self.role.as_deref().map(row::membership).transpose()?;
        let session = Session {
            id: id.clone(),
            owner: row::id(&self.owner_id)?,
            title: self.title,
            agent: row::id_if_any(self.agent_id)?,
            visibility: row::visibility(&self.visibility)?,
            member_count: row::unsigned(self.member_count)?,
            last_message_at: self.last_message_at.map(Timestamp::from),
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
        };
        Ok(Access { session, membership })
    }
}

/// The session and what `user` is in it.
pub(super) async fn access(
    pool: &Pool,
    id: &SessionId,
    user: &UserId,
) -> sqlx::Result<Option<Access>> {
    sqlx::query_as::<Db, AccessRow>(
        "SELECT s.owner_id, s.title, s.agent_id, s.visibility, s.member_count, \
         s.last_message_at, s.created_at, s.updated_at, m.role \
         FROM session s LEFT JOIN session_member m ON m.session_id = s.id AND m.user_id = $2 \
         WHERE s.id = $1 AND s.deleted_at IS NULL",
    )
    .bind(id.as_str())
    .bind(user.as_str())
    .fetch_optional(pool)
    .await?
    .map(|found| found.read(id))
    .transpose()
}

/// Makes a session and its owner's membership, where the id is free.
pub(super) async fn create(pool: &Pool, new: &NewSession) -> sqlx::Result<CreatedSession> {
    let title = new.title.as_deref().map(row::storable).transpose()?;
    let mut transaction = begin(pool).await?;
    let made: Option<(Time,)> = sqlx::query_as(concat!(
        "INSERT INTO session (id, owner_id, title, agent_id, visibility, created_at, updated_at) \
         SELECT $1, $2, $3, $4, $5, at, at FROM (SELECT ",
        now!(),
        " AS at) clock WHERE true ON CONFLICT (id) DO NOTHING RETURNING created_at",
    ))
    .bind(new.id.as_str())
    .bind(new.owner.as_str())
    .bind(title)
    .bind(new.agent.as_ref().map(|agent| agent.as_str()))
    .bind(row::visibility_word(new.visibility))
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((created_at,)) = made else {
        transaction.rollback().await?;
        let access = access(pool, &new.id, &new.owner).await?;
        return Ok(CreatedSession { created: false, access });
    };
    sqlx::query(
        "INSERT INTO session_member (session_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(new.id.as_str())
    .bind(new.owner.as_str())
    .bind(row::membership_word(Membership::Owner))
    .bind(created_at)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let session = Session {
        id: new.id.clone(),
        owner: new.owner.clone(),
        title: new.title.clone(),
        agent: new.agent.clone(),
        visibility: new.visibility,
        member_count: 1,
        last_message_at: None,
        created_at: created_at.into(),
        updated_at: created_at.into(),
    };
    let access = Some(Access { session, membership: Some(Membership::Owner) });
    Ok(CreatedSession { created: true, access })
}

pub(super) async fn page(
    _pool: &Pool,
    _user: &UserId,
    _after: Option<&SessionCursor>,
    _limit: u32,
) -> sqlx::Result<SessionPage> {
    todo!()
}

pub(super) async fn ids_of(
    _pool: &Pool,
    _user: &UserId,
    _limit: u32,
) -> sqlx::Result<Vec<SessionId>> {
    todo!()
}

pub(super) async fn update(
    _pool: &Pool,
    _id: &SessionId,
    _change: &SessionChange,
) -> sqlx::Result<Option<SessionChanged>> {
    todo!()
}

pub(super) async fn delete(
    _pool: &Pool,
    _id: &SessionId,
    _by: &UserId,
) -> sqlx::Result<Option<Outgoing>> {
    todo!()
}

/// Where a session's next message stands, and when.
pub(super) struct Place {
    pub(super) ordinal: u64,
    pub(super) revision: u64,
    pub(super) at: Timestamp,
    /// Whether the session was deleted.
    pub(super) deleted: bool,
}

/// Takes the session's next ordinal, and its lock until the transaction ends: a transaction that
/// is rolled back leaves no hole. `None` where there is no such session.
pub(super) async fn next_place(
    transaction: &mut Transaction,
    id: &SessionId,
) -> sqlx::Result<Option<Place>> {
    let found: Option<(i64, i64, Time, Option<Time>)> = sqlx::query_as(concat!(
        "UPDATE session SET last_ordinal = last_ordinal + 1, last_revision = last_revision + 1, \
         last_message_at = ",
        now!(),
        " WHERE id = $1 RETURNING last_ordinal, last_revision, last_message_at, deleted_at",
    ))
    .bind(id.as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    let Some((ordinal, revision, at, deleted_at)) = found else { return Ok(None) };
    Ok(Some(Place {
        ordinal: row::unsigned(ordinal)?,
        revision: row::unsigned(revision)?,
        at: at.into(),
        deleted: deleted_at.is_some(),
    }))
}

/// When a stored event of a session happened, and its revision.
pub(super) struct Turn {
    pub(super) revision: u64,
    pub(super) at: Timestamp,
}

/// Takes the session's next revision, and its lock until the transaction ends, as [`next_place`]
/// does for an event that is no new message. `None` where there is no such session, or it was
/// deleted.
pub(super) async fn next_turn(
    transaction: &mut Transaction,
    id: &SessionId,
) -> sqlx::Result<Option<Turn>> {
    let found: Option<(i64, Time)> = sqlx::query_as(concat!(
        "UPDATE session SET last_revision = last_revision + 1 WHERE id = $1 \
         AND deleted_at IS NULL RETURNING last_revision, ",
        now!(),
    ))
    .bind(id.as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    let turn = |(revision, at): (i64, Time)| {
        Ok(Turn { revision: row::unsigned(revision)?, at: at.into() })
    };
    found.map(turn).transpose()
}
