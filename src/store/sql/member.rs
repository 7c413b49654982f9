//! Who belongs to a session, and how far they have read.

use uuid::Uuid;

use super::{Db, Pool, Time, Transaction, begin, outbox, row, session};
use crate::domain::{EventKind, Member, Membership, MessageId, Revoked, SessionId, UserId};
use crate::store::{MemberAdded, Outgoing, Seen};

#[derive(sqlx::FromRow)]
struct MemberRow {
    user_id: String,
    role: String,
    joined_at: Time,
    last_seen_message_id: Option<Uuid>,
}

impl MemberRow {
    fn read(self) -> sqlx::Result<Member> {
        Ok(Member {
            user: row::id(&self.user_id)?,
            membership: row::membership(&self.role)?,
            joined_at: self.joined_at.into(),
            last_seen: self.last_seen_message_id.map(MessageId),
        })
    }
}

/// One statement.
pub(super) async fn all(pool: &Pool, id: &SessionId, limit: u32) -> sqlx::Result<Vec<Member>> {
    let rows: Vec<MemberRow> = sqlx::query_as(
        "SELECT user_id, role, joined_at, last_seen_message_id FROM session_member \
         WHERE session_id = $1 \
         AND EXISTS (SELECT 1 FROM session WHERE id = $1 AND deleted_at IS NULL) \
         ORDER BY CASE role WHEN 'owner' THEN 0 ELSE 1 END, joined_at, user_id LIMIT $2",
    )
    .bind(id.as_str())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(MemberRow::read).collect()
}

/// Two statements, three where they were a member before. The session's row counts its members,
/// so its lock is what keeps two from taking the last place.
pub(super) async fn add(
    pool: &Pool,
    id: &SessionId,
    user: &UserId,
    max: u32,
) -> sqlx::Result<MemberAdded> {
    let mut transaction = begin(pool).await?;
    let counted: Option<(i64, Time)> = sqlx::query_as(concat!(
        "UPDATE session SET member_count = member_count + 1 \
         WHERE id = $1 AND deleted_at IS NULL RETURNING member_count, ",
        now!(),
    ))
    .bind(id.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((count, at)) = counted else {
        transaction.rollback().await?;
        return Ok(MemberAdded::NoSession);
    };
    let added = sqlx::query(
        "INSERT INTO session_member (session_id, user_id, role, joined_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (session_id, user_id) DO NOTHING",
    )
    .bind(id.as_str())
    .bind(user.as_str())
    .bind(row::membership_word(Membership::Member))
    .bind(at)
    .execute(&mut *transaction)
    .await?;
    if added.rows_affected() == 0 {
        let member = find(&mut transaction, id, user).await?;
        transaction.rollback().await?;
        return Ok(MemberAdded::Already(member));
    }
    if count > i64::from(max) {
        transaction.rollback().await?;
        return Ok(MemberAdded::TooMany);
    }
    transaction.commit().await?;
    Ok(MemberAdded::New(Member {
        user: user.clone(),
        membership: Membership::Member,
        joined_at: at.into(),
        last_seen: None,
    }))
}

async fn find(
    transaction: &mut Transaction,
    id: &SessionId,
    user: &UserId,
) -> sqlx::Result<Member> {
    sqlx::query_as::<Db, MemberRow>(
        "SELECT user_id, role, joined_at, last_seen_message_id FROM session_member \
         WHERE session_id = $1 AND user_id = $2",
    )
    .bind(id.as_str())
    .bind(user.as_str())
    .fetch_one(&mut **transaction)
    .await?
    .read()
}

/// Four statements.
pub(super) async fn remove(
    pool: &Pool,
    id: &SessionId,
    user: &UserId,
) -> sqlx::Result<Option<Outgoing>> {
    let mut transaction = begin(pool).await?;
    let Some(turn) = session::next_turn(&mut transaction, id).await? else {
        transaction.rollback().await?;
        return Ok(None);
    };
    let removed = sqlx::query(
        "DELETE FROM session_member WHERE session_id = $1 AND user_id = $2 AND role <> $3",
    )
    .bind(id.as_str())
    .bind(user.as_str())
    .bind(row::membership_word(Membership::Owner))
    .execute(&mut *transaction)
    .await?;
    if removed.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    sqlx::query("UPDATE session SET member_count = member_count - 1 WHERE id = $1")
        .bind(id.as_str())
        .execute(&mut *transaction)
        .await?;
    let kind = EventKind::AccessRevoked(Revoked::User(user.clone()));
    let outgoing = outbox::tell(&mut transaction, turn, kind).await?;
    transaction.commit().await?;
    Ok(Some(outgoing))
}

/// Four statements; one, and no lock, where there is nothing to move.
pub(super) async fn see(
    pool: &Pool,
    session: &SessionId,
    id: MessageId,
    user: &UserId,
) -> sqlx::Result<Seen> {
    let mut transaction = begin(pool).await?;
    let Some(look) = look(&mut transaction, session, id, user).await? else {
        transaction.rollback().await?;
        return Ok(Seen::NoMessage);
    };
    if look.seen.is_some_and(|seen| seen >= look.ordinal) {
        transaction.rollback().await?;
        return Ok(Seen::Already);
    }
    let Some(turn) = session::next_turn(&mut transaction, session).await? else {
        transaction.rollback().await?;
        return Ok(Seen::NoMessage);
    };
    let moved = move_on(&mut transaction, session, id, user, look.ordinal).await?;
    // Between the look and the lock, another device of a member may have seen more.
    if look.member && !moved {
        transaction.rollback().await?;
        return Ok(Seen::Already);
    }
    let kind = EventKind::MessageSeen { message: id, user: user.clone(), at: turn.at };
    let outgoing = outbox::tell(&mut transaction, turn, kind).await?;
    transaction.commit().await?;
    Ok(Seen::Moved { outgoing })
}

/// Where a message stands, and how far a user has read.
#[derive(sqlx::FromRow)]
struct Look {
    /// The message's.
    ordinal: i64,
    /// Whether the user has a row that keeps the position.
    member: bool,
    /// That of the message they have seen last.
    seen: Option<i64>,
}

async fn look(
    transaction: &mut Transaction,
    session: &SessionId,
    id: MessageId,
    user: &UserId,
) -> sqlx::Result<Option<Look>> {
    sqlx::query_as(
        "SELECT message.ordinal, m.user_id IS NOT NULL AS member, \
         (SELECT ordinal FROM message WHERE id = m.last_seen_message_id) AS seen \
         FROM message JOIN session s ON s.id = message.session_id AND s.deleted_at IS NULL \
         LEFT JOIN session_member m ON m.session_id = s.id AND m.user_id = $3 \
         WHERE message.id = $2 AND s.id = $1",
    )
    .bind(session.as_str())
    .bind(id.0)
    .bind(user.as_str())
    .fetch_optional(&mut **transaction)
    .await
}

/// Whether there was a position, and it was before `ordinal`.
async fn move_on(
    transaction: &mut Transaction,
    session: &SessionId,
    id: MessageId,
    user: &UserId,
    ordinal: i64,
) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "UPDATE session_member SET last_seen_message_id = $3 \
         WHERE session_id = $1 AND user_id = $2 AND COALESCE((SELECT ordinal FROM message \
         WHERE message.id = session_member.last_seen_message_id), 0) < $4",
    )
    .bind(session.as_str())
    .bind(user.as_str())
    .bind(id.0)
    .bind(ordinal)
    .execute(&mut **transaction)
    .await?;
    Ok(moved.rows_affected() == 1)
}
