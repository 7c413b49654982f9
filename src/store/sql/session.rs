//! Sessions and who is in them.

use super::{Db, Pool, Time, Transaction, begin, lock_user, outbox, row};
use crate::domain::{
    Access, AgentId, EventKind, Membership, MessageId, Revoked, Session, SessionChange, SessionId,
    Timestamp, UserId, Visibility,
};
use crate::store::{
    CreatedSession, NewSession, Outgoing, SessionChanged, SessionCursor, SessionPage,
};

/// The columns of a [`SessionRow`]. None has the name of a message's or a membership's column.
macro_rules! session_columns {
    () => {
        "owner_id, title, agent_id AS session_agent, visibility, member_count, last_ordinal, \
         last_message_at, created_at AS made_at, updated_at AS changed_at"
    };
}
pub(super) use session_columns;

#[derive(sqlx::FromRow)]
struct SessionRow {
    owner_id: String,
    title: Option<String>,
    session_agent: Option<String>,
    visibility: String,
    member_count: i64,
    last_ordinal: i64,
    last_message_at: Option<Time>,
    made_at: Time,
    changed_at: Time,
}

impl SessionRow {
    fn read(self, id: &SessionId) -> sqlx::Result<Session> {
        Ok(Session {
            id: id.clone(),
            owner: row::id(&self.owner_id)?,
            title: self.title,
            agent: row::id_if_any(self.session_agent)?,
            visibility: row::visibility(&self.visibility)?,
            member_count: row::unsigned(self.member_count)?,
            last_ordinal: row::unsigned(self.last_ordinal)?,
            last_message_at: self.last_message_at.map(Timestamp::from),
            created_at: self.made_at.into(),
            updated_at: self.changed_at.into(),
        })
    }
}

/// A session, and the role of a user in it.
#[derive(sqlx::FromRow)]
pub(super) struct AccessRow {
    #[sqlx(flatten)]
    session: SessionRow,
    membership: Option<String>,
}

impl AccessRow {
    pub(super) fn read(self, id: &SessionId) -> sqlx::Result<Access> {
        let membership = self.membership.as_deref().map(row::membership).transpose()?;
        Ok(Access { session: self.session.read(id)?, membership })
    }
}

/// The session and what `user` is in it.
pub(super) async fn access(
    pool: &Pool,
    id: &SessionId,
    user: &UserId,
) -> sqlx::Result<Option<Access>> {
    sqlx::query_as::<Db, AccessRow>(concat!(
        "SELECT ",
        session_columns!(),
        ", m.role AS membership \
         FROM session s LEFT JOIN session_member m ON m.session_id = s.id AND m.user_id = $2 \
         WHERE s.id = $1 AND s.deleted_at IS NULL",
    ))
    .bind(id.as_str())
    .bind(user.as_str())
    .fetch_optional(pool)
    .await?
    .map(|found| found.read(id))
    .transpose()
}

/// Makes a session and its owner's membership, where the id is free.
pub(super) async fn create(pool: &Pool, new: &NewSession) -> sqlx::Result<CreatedSession> {
    let mut transaction = begin(pool).await?;
    let Some(made) = insert(&mut transaction, new, None).await? else {
        transaction.rollback().await?;
        let access = access(pool, &new.id, &new.owner).await?;
        return Ok(CreatedSession { created: false, access });
    };
    transaction.commit().await?;
    Ok(CreatedSession { created: true, access: Some(made) })
}

/// Stores a new session and its owner's membership. `None` where its id is taken, or its owner has
/// another with that persona: nothing was stored then.
pub(super) async fn insert(
    transaction: &mut Transaction,
    new: &NewSession,
    persona: Option<&AgentId>,
) -> sqlx::Result<Option<Access>> {
    let title = new.title.as_deref().map(row::storable).transpose()?;
    let made: Option<(Time,)> = sqlx::query_as(concat!(
        "INSERT INTO session (id, owner_id, title, agent_id, visibility, persona_key, created_at, \
         updated_at) SELECT $1, $2, $3, $4, $5, $6, at, at FROM (SELECT ",
        now!(),
        " AS at) clock WHERE true ON CONFLICT DO NOTHING RETURNING created_at",
    ))
    .bind(new.id.as_str())
    .bind(new.owner.as_str())
    .bind(title)
    .bind(new.agent.as_ref().map(|agent| agent.as_str()))
    .bind(row::visibility_word(new.visibility))
    .bind(persona.map(|agent| agent.as_str()))
    .fetch_optional(&mut **transaction)
    .await?;
    let Some((created_at,)) = made else { return Ok(None) };
    sqlx::query(
        "INSERT INTO session_member (session_id, user_id, role, joined_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(new.id.as_str())
    .bind(new.owner.as_str())
    .bind(row::membership_word(Membership::Owner))
    .bind(created_at)
    .execute(&mut **transaction)
    .await?;
    let session = Session {
        id: new.id.clone(),
        owner: new.owner.clone(),
        title: new.title.clone(),
        agent: new.agent.clone(),
        visibility: new.visibility,
        member_count: 1,
        last_ordinal: 0,
        last_message_at: None,
        created_at: created_at.into(),
        updated_at: created_at.into(),
    };
    Ok(Some(Access { session, membership: Some(Membership::Owner) }))
}

/// The sessions of user `$1`, last active first: the named columns of at most `$2` of them.
/// `$further` begins with "AND", where it is not empty.
macro_rules! sessions_of {
    ($columns:expr, $further:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM session_member m JOIN session s ON s.id = m.session_id \
             WHERE m.user_id = $1 AND s.deleted_at IS NULL ",
            $further,
            " ORDER BY COALESCE(s.last_message_at, s.created_at) DESC, s.id DESC LIMIT $2",
        )
    };
}

/// An [`AccessRow`] that says which session it is.
#[derive(sqlx::FromRow)]
pub(super) struct FoundSessionRow {
    id: String,
    #[sqlx(flatten)]
    access: AccessRow,
}

impl FoundSessionRow {
    pub(super) fn read(self) -> sqlx::Result<Access> {
        self.access.read(&row::id(&self.id)?)
    }
}

/// One statement, which looks at all sessions of the user.
pub(super) async fn page(
    pool: &Pool,
    user: &UserId,
    after: Option<&SessionCursor>,
    limit: u32,
) -> sqlx::Result<SessionPage> {
    macro_rules! columns {
        () => {
            concat!("s.id, ", session_columns!(), ", m.role AS membership")
        };
    }
    let statement = match after {
        None => sessions_of!(columns!(), ""),
        Some(_) => sessions_of!(
            columns!(),
            "AND (COALESCE(s.last_message_at, s.created_at), s.id) < ($3, $4)"
        ),
    };
    // One more than asked for tells whether there are more.
    let mut page = sqlx::query_as::<Db, FoundSessionRow>(statement)
        .bind(user.as_str())
        .bind(i64::from(limit) + 1);
    if let Some(after) = after {
        page = page.bind(Time::from(after.active_at)).bind(after.session.as_str());
    }
    let mut rows = page.fetch_all(pool).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let sessions: Vec<Access> =
        rows.into_iter().map(FoundSessionRow::read).collect::<sqlx::Result<_>>()?;
    let last = sessions.last().filter(|_| has_more).map(|last| &last.session);
    let next = last.map(|last| SessionCursor {
        active_at: last.last_message_at.unwrap_or(last.created_at),
        session: last.id.clone(),
    });
    Ok(SessionPage { sessions, next })
}

/// One statement.
pub(super) async fn ids_of(pool: &Pool, user: &UserId, limit: u32) -> sqlx::Result<Vec<SessionId>> {
    let rows: Vec<(String,)> = sqlx::query_as(sessions_of!("s.id", ""))
        .bind(user.as_str())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    rows.into_iter().map(|(id,)| row::id(&id)).collect()
}

/// One statement; two or three where it may not be open any more.
pub(super) async fn update(
    pool: &Pool,
    id: &SessionId,
    change: &SessionChange,
) -> sqlx::Result<Option<SessionChanged>> {
    let title = change.title.as_ref().and_then(Option::as_deref);
    let title = title.map(row::storable).transpose()?;
    let mut transaction = begin(pool).await?;
    let closed = match change.visibility {
        Some(Visibility::Private) => close(&mut transaction, id).await?,
        Some(Visibility::Open) | None => None,
    };
    let changed: Option<SessionRow> = sqlx::query_as(concat!(
        "UPDATE session SET title = CASE WHEN $2 THEN $3 ELSE title END, \
         agent_id = CASE WHEN $4 THEN $5 ELSE agent_id END, \
         visibility = COALESCE($6, visibility), updated_at = CASE WHEN $7 THEN ",
        now!(),
        " ELSE updated_at END WHERE id = $1 AND deleted_at IS NULL RETURNING ",
        session_columns!(),
    ))
    .bind(id.as_str())
    .bind(change.title.is_some())
    .bind(title)
    .bind(change.agent.is_some())
    .bind(change.agent.as_ref().and_then(Option::as_ref).map(|agent| agent.as_str()))
    .bind(change.visibility.map(row::visibility_word))
    .bind(*change != SessionChange::default())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(changed) = changed else {
        transaction.rollback().await?;
        return Ok(None);
    };
    let outgoing = match closed {
        Some(turn) => {
            let kind = EventKind::AccessRevoked(Revoked::Guests);
            Some(outbox::tell(&mut transaction, turn, kind).await?)
        }
        None => None,
    };
    transaction.commit().await?;
    Ok(Some(SessionChanged { session: changed.read(id)?, outgoing }))
}

/// Makes an open session private, and takes its next revision for that. `None` where it is not
/// open.
async fn close(transaction: &mut Transaction, id: &SessionId) -> sqlx::Result<Option<Turn>> {
    let found: Option<TurnRow> = sqlx::query_as(concat!(
        "UPDATE session SET visibility = 'private', last_revision = last_revision + 1 \
         WHERE id = $1 AND visibility = 'open' AND deleted_at IS NULL \
         RETURNING id, last_revision, ",
        now!(),
        " AS at",
    ))
    .bind(id.as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    found.map(TurnRow::read).transpose()
}

/// Six statements. A generation's row is locked before its session's, so those that run are asked
/// to stop first; then, under the session's lock, those that were accepted in between. One of
/// these that ends in that very moment waits for the session as this waits for it: the database
/// notices, and refuses one of the two as unavailable. Two deletions wait for each other before
/// they lock anything.
pub(super) async fn delete(
    pool: &Pool,
    id: &SessionId,
    by: &UserId,
) -> sqlx::Result<Option<Outgoing>> {
    let mut transaction = begin(pool).await?;
    lock_user(&mut transaction, by).await?;
    stop_all(&mut transaction, id, by).await?;
    let Some(turn) = next_turn(&mut transaction, id).await? else {
        transaction.rollback().await?;
        return Ok(None);
    };
    sqlx::query("UPDATE session SET deleted_at = $2, updated_at = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(Time::from(turn.at))
        .execute(&mut *transaction)
        .await?;
    stop_all(&mut transaction, id, by).await?;
    let kind = EventKind::AccessRevoked(Revoked::Everyone);
    let outgoing = outbox::tell(&mut transaction, turn, kind).await?;
    transaction.commit().await?;
    Ok(Some(outgoing))
}

async fn stop_all(transaction: &mut Transaction, id: &SessionId, by: &UserId) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE stream SET stop_requested = $2 \
         WHERE session_id = $1 AND completed_at IS NULL AND stop_requested IS NULL",
    )
    .bind(id.as_str())
    .bind(by.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
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
    pub(super) session: SessionId,
    pub(super) revision: u64,
    pub(super) at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct TurnRow {
    id: String,
    last_revision: i64,
    at: Time,
}

impl TurnRow {
    fn read(self) -> sqlx::Result<Turn> {
        Ok(Turn {
            session: row::id(&self.id)?,
            revision: row::unsigned(self.last_revision)?,
            at: self.at.into(),
        })
    }
}

/// Takes the session's next revision, and its lock until the transaction ends, as [`next_place`]
/// does for an event that is no new message. `None` where there is no such session, or it was
/// deleted.
pub(super) async fn next_turn(
    transaction: &mut Transaction,
    id: &SessionId,
) -> sqlx::Result<Option<Turn>> {
    let found: Option<TurnRow> = sqlx::query_as(concat!(
        "UPDATE session SET last_revision = last_revision + 1 WHERE id = $1 \
         AND deleted_at IS NULL RETURNING id, last_revision, ",
        now!(),
        " AS at",
    ))
    .bind(id.as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    found.map(TurnRow::read).transpose()
}

/// As [`next_turn`], for the session of a message. Whether that was deleted is to be asked after.
pub(super) async fn next_turn_of(
    transaction: &mut Transaction,
    id: MessageId,
) -> sqlx::Result<Option<Turn>> {
    let found: Option<TurnRow> = sqlx::query_as(concat!(
        "UPDATE session SET last_revision = last_revision + 1 \
         WHERE id = (SELECT session_id FROM message WHERE id = $1) \
         AND deleted_at IS NULL RETURNING id, last_revision, ",
        now!(),
        " AS at",
    ))
    .bind(id.0)
    .fetch_optional(&mut **transaction)
    .await?;
    found.map(TurnRow::read).transpose()
}
