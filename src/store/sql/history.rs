//! Pages of a session's messages, and threads.

use uuid::Uuid;

use super::search::{self, FoundRow};
use super::{Connection, Pool, message, row};
use crate::domain::{MessageId, SessionId};
use crate::store::{FOUND_MAX, Found, History, HistoryPage};

pub(super) async fn page(
    pool: &Pool,
    session: &SessionId,
    page: &HistoryPage,
) -> sqlx::Result<Option<History>> {
    let mut connection = pool.acquire().await?;
    let Some(bounds) = Bounds::read(&mut connection, session, page).await? else {
        return Ok(None);
    };
    match page.parent {
        Some(parent) => replies(&mut connection, parent, page, &bounds).await,
        None => all(&mut connection, session, page, &bounds).await,
    }
    .map(Some)
}

/// What a page lies between.
struct Bounds {
    /// The session's newest.
    last: u64,
    /// The ordinal that the first is beyond.
    after: u64,
    /// The ordinal that the last is before.
    before: u64,
}

#[derive(sqlx::FromRow)]
struct BoundsRow {
    last: Option<i64>,
    parent: Option<i64>,
    before: Option<i64>,
    after: Option<i64>,
}

impl Bounds {
    /// `None` where the page names a message that the session has not.
    async fn read(
        connection: &mut Connection,
        session: &SessionId,
        page: &HistoryPage,
    ) -> sqlx::Result<Option<Self>> {
        let found: BoundsRow = sqlx::query_as(
            "SELECT (SELECT last_ordinal FROM session WHERE id = $1) AS last, \
             (SELECT ordinal FROM message WHERE id = $2 AND session_id = $1) AS parent, \
             (SELECT ordinal FROM message WHERE id = $3 AND session_id = $1) AS before, \
             (SELECT ordinal FROM message WHERE id = $4 AND session_id = $1) AS after",
        )
        .bind(session.as_str())
        .bind(page.parent.map(|id| id.0))
        .bind(page.before.map(|id| id.0))
        .bind(page.after.map(|id| id.0))
        .fetch_one(connection)
        .await?;
        let unknown =
            [(page.parent, found.parent), (page.before, found.before), (page.after, found.after)]
                .into_iter()
                .any(|(named, found)| named.is_some() && found.is_none());
        if unknown {
            return Ok(None);
        }
        let last: u64 = row::unsigned(found.last.unwrap_or_default())?;
        let after = row::unsigned(found.after.unwrap_or_default())?;
        let before = found.before.map_or(Ok(last + 1), row::unsigned)?;
        Ok(Some(Self { last, after, before }))
    }
}

/// Whether a page is counted from its oldest message.
fn is_forward(page: &HistoryPage) -> bool {
    page.after.is_some() && page.before.is_none()
}

/// Ordinals are dense, so which ones the page has is known without counting any.
async fn all(
    connection: &mut Connection,
    session: &SessionId,
    page: &HistoryPage,
    bounds: &Bounds,
) -> sqlx::Result<History> {
    let count = bounds.before.saturating_sub(bounds.after + 1);
    let offset = page.offset.min(count);
    let length = u64::from(page.limit).min(count - offset);
    let first =
        if is_forward(page) { bounds.after + 1 + offset } else { bounds.before - offset - length };
    let messages = match length {
        0 => Vec::new(),
        _ => message::in_range(connection, session, first..=first + length - 1).await?,
    };
    Ok(History { messages, total: bounds.last, has_more: offset + length < count })
}

/// The direct replies to a message.
async fn replies(
    connection: &mut Connection,
    parent: MessageId,
    page: &HistoryPage,
    bounds: &Bounds,
) -> sqlx::Result<History> {
    let (total,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM \
         (SELECT 1 FROM message WHERE parent_message_id = $1 LIMIT $2) AS reply",
    )
    .bind(parent.0)
    .bind(i64::from(FOUND_MAX))
    .fetch_one(&mut *connection)
    .await?;
    let of_page = match is_forward(page) {
        true => {
            "SELECT id FROM message WHERE parent_message_id = $1 AND ordinal > $2 \
             AND ordinal < $3 ORDER BY ordinal LIMIT $4 OFFSET $5"
        }
        false => {
            "SELECT id FROM message WHERE parent_message_id = $1 AND ordinal > $2 \
             AND ordinal < $3 ORDER BY ordinal DESC LIMIT $4 OFFSET $5"
        }
    };
    // One more than asked for tells whether there are more.
    let rows: Vec<(Uuid,)> = sqlx::query_as(of_page)
        .bind(parent.0)
        .bind(row::signed(bounds.after))
        .bind(row::signed(bounds.before))
        .bind(i64::from(page.limit) + 1)
        .bind(row::signed(page.offset))
        .fetch_all(&mut *connection)
        .await?;
    let mut ids: Vec<Uuid> = rows.into_iter().map(|(id,)| id).collect();
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let has_more = ids.len() > limit;
    ids.truncate(limit);
    if !is_forward(page) {
        ids.reverse();
    }
    let messages = message::with_ids(connection, &ids).await?;
    Ok(History { messages, total: row::unsigned(total)?, has_more })
}

/// Both databases stop the recursion when what reads it has enough. `UNION` passes over what was
/// reached before, so a circle, which nothing makes, would end as well.
pub(super) async fn thread(
    pool: &Pool,
    id: MessageId,
    limit: u32,
    offset: u64,
) -> sqlx::Result<Found> {
    let mut connection = pool.acquire().await?;
    let rows: Vec<FoundRow> = sqlx::query_as(
        "WITH RECURSIVE reply (id, ordinal) AS (\
         SELECT id, ordinal FROM message WHERE parent_message_id = $1 \
         UNION SELECT message.id, message.ordinal FROM reply \
         JOIN message ON message.parent_message_id = reply.id), \
         found AS MATERIALIZED (SELECT id, ordinal FROM reply LIMIT $2) \
         SELECT (SELECT count(*) FROM found) AS total, page.id AS message_id \
         FROM (SELECT 1) AS one LEFT JOIN \
         (SELECT id, ordinal FROM found ORDER BY ordinal LIMIT $3 OFFSET $4) AS page \
         ON 1 = 1 ORDER BY page.ordinal",
    )
    .bind(id.0)
    .bind(i64::from(FOUND_MAX))
    .bind(i64::from(limit))
    .bind(row::signed(offset))
    .fetch_all(&mut *connection)
    .await?;
    search::found(&mut connection, rows).await
}
