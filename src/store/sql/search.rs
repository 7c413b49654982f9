//! Finding messages by their words.
//!
//! A session's rows in `message_search` have rising ids as its messages have rising ordinals: each
//! message is indexed in the transaction that stores it, under the session's lock, and what was
//! stored before there was an index is indexed before a node serves.

use uuid::Uuid;

use super::{Connection, Pool, asked_words, begin, kept_words, message};
use crate::domain::{Message, MessageId, SessionId};
use crate::store::{FOUND_MAX, Found, words};

/// How many messages [`index_older`] takes.
const BATCH: i64 = 200;

/// Makes a message found by what it says now. One statement, also where it has no word: its row
/// keeps its place for words that come later.
pub(super) async fn index(connection: &mut Connection, message: &Message) -> sqlx::Result<()> {
    sqlx::query(concat!(
        "INSERT INTO message_search (message_id, words) VALUES ($1, ",
        indexed_words!("$2"),
        ") ON CONFLICT (message_id) DO UPDATE SET words = excluded.words",
    ))
    .bind(message.id.0)
    .bind(kept_words(words::of_message(&message.session, &message.content)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes a message found no longer. One statement.
pub(super) async fn forget(connection: &mut Connection, id: MessageId) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM message_search WHERE message_id = $1")
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Indexes some of the messages that were stored before there was an index, in the order of their
/// sessions. Whether there may be more. Of two that do so at once, one waits for the other, since
/// both delete the same rows first.
pub(super) async fn index_older(pool: &Pool) -> sqlx::Result<bool> {
    let mut connection = pool.acquire().await?;
    let (left,): (bool,) = sqlx::query_as("SELECT EXISTS (SELECT 1 FROM message_unindexed)")
        .fetch_one(&mut *connection)
        .await?;
    // Back to the pool, which may have but one.
    drop(connection);
    if !left {
        return Ok(false);
    }
    let mut transaction = begin(pool).await?;
    let mut taken: Vec<(i64, Uuid)> = sqlx::query_as(
        "DELETE FROM message_unindexed \
         WHERE id IN (SELECT id FROM message_unindexed ORDER BY id LIMIT $1) \
         RETURNING id, message_id",
    )
    .bind(BATCH)
    .fetch_all(&mut *transaction)
    .await?;
    taken.sort_unstable();
    let taken: Vec<Uuid> = taken.into_iter().map(|(_, message)| message).collect();
    for older in message::with_ids(&mut transaction, &taken).await? {
        index(&mut transaction, &older).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// A page of what was found.
#[derive(sqlx::FromRow)]
pub(super) struct FoundRow {
    /// How many were found.
    pub(super) total: i64,
    /// One of the page; `None` in the only row of an empty one.
    pub(super) message_id: Option<Uuid>,
}

/// What matches is counted and its page taken in one statement, so that they agree.
pub(super) async fn search(
    pool: &Pool,
    session: &SessionId,
    query: &str,
    limit: u32,
    offset: u64,
) -> sqlx::Result<Found> {
    let asked = words::of_query(session, query);
    if asked.is_empty() {
        return Ok(Found::default());
    }
    let mut connection = pool.acquire().await?;
    let rows: Vec<FoundRow> = sqlx::query_as(concat!(
        "WITH found AS MATERIALIZED (",
        has_words!("$1"),
        " ORDER BY id DESC LIMIT $2) \
         SELECT (SELECT count(*) FROM found) AS total, ",
        message_of!("page"),
        " AS message_id FROM (SELECT 1) AS one LEFT JOIN \
         (SELECT * FROM found ORDER BY id DESC LIMIT $3 OFFSET $4) AS page \
         ON 1 = 1 ORDER BY page.id DESC",
    ))
    .bind(asked_words(asked))
    .bind(i64::from(FOUND_MAX))
    .bind(i64::from(limit))
    .bind(super::row::signed(offset))
    .fetch_all(&mut *connection)
    .await?;
    let mut found = found(&mut connection, rows).await?;
    // Whoever can make up an id whose digest is that of another session gets no message of it.
    found.messages.retain(|message| message.session == *session);
    Ok(found)
}

/// Reads the messages of a page.
pub(super) async fn found(connection: &mut Connection, rows: Vec<FoundRow>) -> sqlx::Result<Found> {
    let total = rows.first().map_or(Ok(0), |row| super::row::unsigned(row.total))?;
    let page: Vec<Uuid> = rows.into_iter().filter_map(|row| row.message_id).collect();
    Ok(Found { messages: message::with_ids(connection, &page).await?, total })
}
