//! The outbox: events that are stored and not yet known to stand in their session's log.

use std::time::Duration;

use uuid::Uuid;

use super::{Connection, Pool, Time, ids, row};
use crate::codec;
use crate::domain::{EventId, Timestamp};
use crate::store::Outgoing;

/// Nothing is older: a century, which both databases can still reckon with.
const AGE_MILLIS_MAX: i64 = 100 * 365 * 24 * 60 * 60 * 1_000;

/// Stores an event, with the transaction that it tells of.
pub(super) async fn insert(
    connection: &mut Connection,
    outgoing: &Outgoing,
    at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO outbox (id, session_id, event, created_at) VALUES ($1, $2, $3, $4)")
        .bind(outgoing.event.id.0)
        .bind(outgoing.session.as_str())
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
    limit: u32,
) -> sqlx::Result<Vec<Outgoing>> {
    let rows: Vec<(Uuid, String, Vec<u8>)> = sqlx::query_as(concat!(
        "SELECT id, session_id, event FROM outbox WHERE created_at <= ",
        now_less!("$1"),
        " ORDER BY seq LIMIT $2",
    ))
    .bind(i64::try_from(age.as_millis()).map_or(AGE_MILLIS_MAX, |age| age.min(AGE_MILLIS_MAX)))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let mut outgoing = Vec::with_capacity(rows.len());
    for (id, session, event) in rows {
        match codec::decode_event(&event) {
            Ok(event) => outgoing.push(Outgoing { session: row::id(&session)?, event }),
            Err(error) => {
                tracing::warn!(event = %EventId(id), %error, "left an event in the outbox");
            }
        }
    }
    Ok(outgoing)
}

/// Deletes events that stand in the log.
pub(super) async fn delete(pool: &Pool, events: &[EventId]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!("DELETE FROM outbox WHERE id IN (", ids!("$1"), ")"))
        .bind(ids(events.iter().map(|event| event.0)))
        .execute(pool)
        .await?;
    Ok(())
}
