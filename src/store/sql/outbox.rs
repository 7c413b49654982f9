//! The outbox: events that are stored and not yet known to stand in their session's log; and those
//! that came to stand there a moment ago, which it may lose.

use std::time::Duration;

use uuid::Uuid;

use super::session::Turn;
use super::{Connection, Pool, Time, ids, put_among_told, row};
use crate::codec;
use crate::domain::{Event, EventId, EventKind, SessionId, Timestamp};
use crate::store::{OutboxPage, Outgoing};

/// The most rows between two revisions.
const BETWEEN_MAX: i64 = 1_000;
/// How long what was told is kept: a replica that takes over is behind by less.
const TOLD_KEPT: Duration = Duration::from_secs(60);

/// Makes the event of a turn and stores it, with the transaction that it tells of.
pub(super) async fn tell(
    connection: &mut Connection,
    turn: Turn,
    kind: EventKind,
) -> sqlx::Result<Outgoing> {
    let Turn { session, revision, at } = turn;
    let event = Event { id: EventId::new(), at, kind };
    let outgoing = Outgoing { session, revision, event };
    insert(connection, &outgoing, at).await?;
    Ok(outgoing)
}

/// Stores an event, with the transaction that it tells of.
pub(super) async fn insert(
    connection: &mut Connection,
    outgoing: &Outgoing,
    at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO outbox (id, session_id, revision, event, created_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(outgoing.event.id.0)
    .bind(outgoing.session.as_str())
    .bind(row::signed(outgoing.revision))
    .bind(codec::encode_event(&outgoing.event))
    .bind(Time::from(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// The events that have stood for `age`. One that this build cannot read, since a newer one wrote
/// it, is left for a node that can and does not hold up the others.
pub(super) async fn older_than(
    pool: &Pool,
    age: Duration,
    after: Option<i64>,
    limit: u32,
) -> sqlx::Result<OutboxPage> {
    let rows: Vec<OutboxRow> = sqlx::query_as(concat!(
        "SELECT seq, id, session_id, revision, event FROM outbox WHERE seq > $3 AND created_at <= ",
        now_less!("$1"),
        " ORDER BY seq LIMIT $2",
    ))
    .bind(row::millis(age))
    .bind(i64::from(limit))
    .bind(after.unwrap_or(0))
    .fetch_all(pool)
    .await?;
    let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = rows.last().map(|row| row.seq).filter(|_| full);
    Ok(OutboxPage { rows: readable(rows)?, next })
}

/// What the outbox holds of a session between two revisions.
pub(super) async fn between(
    pool: &Pool,
    session: &SessionId,
    after: u64,
    before: u64,
) -> sqlx::Result<Vec<Outgoing>> {
    let rows: Vec<OutboxRow> = sqlx::query_as(
        "SELECT seq, id, session_id, revision, event FROM outbox \
         WHERE session_id = $1 AND revision > $2 AND revision < $3 ORDER BY revision LIMIT $4",
    )
    .bind(session.as_str())
    .bind(row::signed(after))
    .bind(row::signed(before))
    .bind(BETWEEN_MAX)
    .fetch_all(pool)
    .await?;
    readable(rows)
}

#[derive(sqlx::FromRow)]
struct OutboxRow {
    seq: i64,
    id: Uuid,
    session_id: String,
    revision: i64,
    event: Vec<u8>,
}

fn readable(rows: Vec<OutboxRow>) -> sqlx::Result<Vec<Outgoing>> {
    let mut outgoing = Vec::with_capacity(rows.len());
    for row in rows {
        match codec::decode_event(&row.event) {
            Ok(event) if event.kind == EventKind::Unknown => {
                tracing::debug!(event = %EventId(row.id), "left to a newer node in the outbox");
            }
            Ok(event) => outgoing.push(Outgoing {
                session: row::id(&row.session_id)?,
                revision: row::unsigned(row.revision)?,
                event,
            }),
            Err(error) => {
                tracing::warn!(event = %EventId(row.id), %error, "left an event in the outbox");
            }
        }
    }
    Ok(outgoing)
}

/// Takes events that stand in the log out of the outbox.
pub(super) async fn delete(pool: &Pool, events: &[EventId]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    put_among_told(pool, ids(events.iter().map(|event| event.0)), row::millis(TOLD_KEPT)).await
}

/// What was told of a session between two revisions, and what the outbox still holds.
pub(super) async fn told(
    pool: &Pool,
    session: &SessionId,
    after: u64,
    before: u64,
) -> sqlx::Result<Vec<Outgoing>> {
    let rows: Vec<OutboxRow> = sqlx::query_as(
        "SELECT CAST(0 AS bigint) AS seq, id, session_id, revision, event FROM outbox \
         WHERE session_id = $1 AND revision > $2 AND revision < $3 \
         UNION \
         SELECT CAST(0 AS bigint) AS seq, id, session_id, revision, event FROM outbox_told \
         WHERE session_id = $1 AND revision > $2 AND revision < $3 ORDER BY revision LIMIT $4",
    )
    .bind(session.as_str())
    .bind(row::signed(after))
    .bind(row::signed(before))
    .bind(BETWEEN_MAX)
    .fetch_all(pool)
    .await?;
    readable(rows)
}

/// Up to which revision the sessions were told that were told something of late.
pub(super) async fn last_told(pool: &Pool, limit: u32) -> sqlx::Result<Vec<(SessionId, u64)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT session_id, max(revision) FROM outbox_told GROUP BY session_id \
         ORDER BY max(told_at) DESC LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|(id, last)| Ok((row::id(&id)?, row::unsigned(last)?))).collect()
}
