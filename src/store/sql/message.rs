//! Messages, with their reactions and attachments.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use sqlx::types::Json;
use uuid::Uuid;

use super::session::{AccessRow, session_columns};
use super::{Connection, Db, Pool, Time, attachment, ids, reaction, row};
use crate::domain::{Message, MessageId, SessionId, Timestamp, Usage, UserId};
use crate::store::{FoundMessage, Missed};

/// The columns of a [`MessageRow`].
macro_rules! message_columns {
    () => {
        "id, session_id, ordinal, user_id, agent_id, role, content, metadata, tokens, \
         input_tokens, output_tokens, parent_message_id, client_message_id, edited_at, \
         deleted_at, created_at, updated_at"
    };
}
pub(super) use message_columns;

#[derive(sqlx::FromRow)]
pub(super) struct MessageRow {
    id: Uuid,
    session_id: String,
    ordinal: i64,
    user_id: Option<String>,
    agent_id: Option<String>,
    role: String,
    content: String,
    metadata: Json<row::Object>,
    tokens: Option<i64>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    parent_message_id: Option<Uuid>,
    client_message_id: Option<String>,
    edited_at: Option<Time>,
    deleted_at: Option<Time>,
    created_at: Time,
    updated_at: Time,
}

impl MessageRow {
    /// Without its reactions and attachments.
    fn read(self) -> sqlx::Result<Message> {
        let usage = match (self.input_tokens, self.output_tokens) {
            (Some(input), Some(output)) => Some(Usage {
                input_tokens: row::unsigned(input)?,
                output_tokens: row::unsigned(output)?,
                cached_tokens: 0,
            }),
            _ => None,
        };
        let content = if self.deleted_at.is_some() { String::new() } else { self.content };
        Ok(Message {
            id: MessageId(self.id),
            session: row::id(&self.session_id)?,
            ordinal: row::unsigned(self.ordinal)?,
            user: row::id_if_any(self.user_id)?,
            agent: row::id_if_any(self.agent_id)?,
            author: row::author(&self.role)?,
            content,
            metadata: self.metadata.0,
            tokens: self.tokens.map(row::unsigned).transpose()?,
            usage,
            parent: self.parent_message_id.map(MessageId),
            client_message_id: self.client_message_id,
            edited_at: self.edited_at.map(Timestamp::from),
            deleted_at: self.deleted_at.map(Timestamp::from),
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            reactions: Vec::new(),
            attachments: Vec::new(),
        })
    }
}

/// Stores a new message, but not its attachments.
pub(super) async fn insert(connection: &mut Connection, message: &Message) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO message (id, session_id, ordinal, user_id, agent_id, role, content, \
         metadata, tokens, input_tokens, output_tokens, parent_message_id, client_message_id, \
         created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(message.id.0)
    .bind(message.session.as_str())
    .bind(row::signed(message.ordinal))
    .bind(message.user.as_ref().map(|user| user.as_str()))
    .bind(message.agent.as_ref().map(|agent| agent.as_str()))
    .bind(row::author_word(message.author))
    .bind(message.content.as_str())
    .bind(Json(&message.metadata))
    .bind(message.tokens.map(row::signed))
    .bind(message.usage.map(|usage| row::signed(usage.input_tokens)))
    .bind(message.usage.map(|usage| row::signed(usage.output_tokens)))
    .bind(message.parent.map(|parent| parent.0))
    .bind(message.client_message_id.as_deref())
    .bind(Time::from(message.created_at))
    .bind(Time::from(message.updated_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// The message as it is stored; an error where there is none.
pub(super) async fn find(connection: &mut Connection, id: MessageId) -> sqlx::Result<Message> {
    let found = sqlx::query_as::<Db, MessageRow>(concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE id = $1"
    ))
    .bind(id.0)
    .fetch_one(&mut *connection)
    .await?;
    complete(connection, vec![found]).await?.pop().ok_or(sqlx::Error::RowNotFound)
}

/// Notes in a message when it was changed, with its new text where there is one. The message as
/// it is then; `None` where there is none, or it was deleted. Three statements.
pub(super) async fn update(
    connection: &mut Connection,
    id: MessageId,
    content: Option<&str>,
    at: Timestamp,
) -> sqlx::Result<Option<Message>> {
    let changed: Option<MessageRow> = sqlx::query_as(concat!(
        "UPDATE message SET content = COALESCE($2, content), updated_at = $3, \
         edited_at = CASE WHEN $4 THEN $3 ELSE edited_at END \
         WHERE id = $1 AND deleted_at IS NULL RETURNING ",
        message_columns!(),
    ))
    .bind(id.0)
    .bind(content)
    .bind(Time::from(at))
    .bind(content.is_some())
    .fetch_optional(&mut *connection)
    .await?;
    Ok(complete(connection, changed.into_iter().collect()).await?.pop())
}

#[derive(sqlx::FromRow)]
struct FoundRow {
    #[sqlx(flatten)]
    message: MessageRow,
    #[sqlx(flatten)]
    access: AccessRow,
}

/// The message, and what `user` is in its session. Three statements.
pub(super) async fn find_for(
    pool: &Pool,
    id: MessageId,
    user: &UserId,
) -> sqlx::Result<Option<FoundMessage>> {
    let mut connection = pool.acquire().await?;
    let found: Option<FoundRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        ", access.* FROM message CROSS JOIN (SELECT ",
        session_columns!(),
        ", m.role AS membership FROM session s \
         LEFT JOIN session_member m ON m.session_id = s.id AND m.user_id = $2 \
         WHERE s.id = (SELECT session_id FROM message WHERE id = $1) \
         AND s.deleted_at IS NULL) access WHERE id = $1",
    ))
    .bind(id.0)
    .bind(user.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let message = complete(&mut connection, vec![found.message]).await?.pop();
    let message = message.ok_or(sqlx::Error::RowNotFound)?;
    let access = found.access.read(&message.session)?;
    Ok(Some(FoundMessage { message, access }))
}

/// The newest `limit` messages up to `last`, deleted ones left out, without their reactions and
/// attachments. One statement.
pub(super) async fn context(
    pool: &Pool,
    session: &SessionId,
    last: MessageId,
    limit: u32,
) -> sqlx::Result<Vec<Message>> {
    let rows: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE session_id = $1 AND deleted_at IS NULL AND ordinal <= \
         (SELECT ordinal FROM message WHERE id = $2 AND session_id = $1) \
         ORDER BY ordinal DESC LIMIT $3",
    ))
    .bind(session.as_str())
    .bind(last.0)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.into_iter().rev().map(MessageRow::read).collect()
}

/// At most `limit` messages after `last`, or the newest.
pub(super) async fn missed(
    pool: &Pool,
    session: &SessionId,
    last: MessageId,
    limit: u32,
) -> sqlx::Result<Missed> {
    let mut connection = pool.acquire().await?;
    let after: Option<(i64,)> =
        sqlx::query_as("SELECT ordinal FROM message WHERE id = $1 AND session_id = $2")
            .bind(last.0)
            .bind(session.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    let page = match after {
        Some(_) => concat!(
            "SELECT ",
            message_columns!(),
            " FROM message WHERE session_id = $1 AND ordinal > $2 ORDER BY ordinal LIMIT $3",
        ),
        None => concat!(
            "SELECT ",
            message_columns!(),
            " FROM message WHERE session_id = $1 AND ordinal > $2 ORDER BY ordinal DESC LIMIT $3",
        ),
    };
    // One more than asked for tells whether there are more.
    let mut rows: Vec<MessageRow> = sqlx::query_as(page)
        .bind(session.as_str())
        .bind(after.map_or(0, |(ordinal,)| ordinal))
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut *connection)
        .await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    if after.is_none() {
        rows.reverse();
    }
    let messages = complete(&mut connection, rows).await?;
    Ok(Missed { messages, has_more, newest: after.is_none() })
}

/// The messages with these ids, in the order of the ids; those that are not there are left out.
pub(super) async fn with_ids(
    connection: &mut Connection,
    wanted: &[Uuid],
) -> sqlx::Result<Vec<Message>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE id IN (",
        ids!("$1"),
        ")",
    ))
    .bind(ids(wanted.iter().copied()))
    .fetch_all(&mut *connection)
    .await?;
    let places: HashMap<&Uuid, usize> = wanted.iter().zip(0..).collect();
    rows.sort_by_key(|row| places.get(&row.id));
    complete(connection, rows).await
}

/// The messages of a session with the ordinals of a range.
pub(super) async fn in_range(
    connection: &mut Connection,
    session: &SessionId,
    ordinals: RangeInclusive<u64>,
) -> sqlx::Result<Vec<Message>> {
    let rows: Vec<MessageRow> = sqlx::query_as(concat!(
        "SELECT ",
        message_columns!(),
        " FROM message WHERE session_id = $1 AND ordinal BETWEEN $2 AND $3 ORDER BY ordinal",
    ))
    .bind(session.as_str())
    .bind(row::signed(*ordinals.start()))
    .bind(row::signed(*ordinals.end()))
    .fetch_all(&mut *connection)
    .await?;
    complete(connection, rows).await
}

/// Reads messages with their reactions and attachments, in two statements for all. A deleted one
/// is read without.
pub(super) async fn complete(
    connection: &mut Connection,
    rows: Vec<MessageRow>,
) -> sqlx::Result<Vec<Message>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let kept = || ids(rows.iter().filter(|row| row.deleted_at.is_none()).map(|row| row.id));
    let mut reactions = reaction::of(connection, kept()).await?;
    let mut attachments = attachment::of(connection, kept()).await?;
    rows.into_iter()
        .map(|row| {
            let reactions = reactions.remove(&row.id).unwrap_or_default();
            let attachments = attachments.remove(&row.id).unwrap_or_default();
            Ok(Message { reactions, attachments, ..row.read()? })
        })
        .collect()
}
