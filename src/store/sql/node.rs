//! The nodes: what each said last, and when, by the database's clock.

use std::time::Duration;

use uuid::Uuid;

use super::{Pool, begin, claim, row};
use crate::domain::{NodeId, Role};
use crate::store::Heartbeat;

/// How long a node's row is kept after its last heartbeat, for people who look.
const KEPT_AFTER: Duration = Duration::from_secs(3600);
/// The most nodes that are listed.
const NODES_MAX: i64 = 1000;

#[derive(sqlx::FromRow)]
struct NodeRow {
    id: Uuid,
    address: String,
    role: String,
    redis_up: bool,
    running: i64,
    running_max: i64,
    draining: bool,
}

impl NodeRow {
    /// `None` for a node whose role a later version brought.
    fn read(self) -> Option<sqlx::Result<Heartbeat>> {
        let Self { id, address, role, redis_up, running, running_max, draining } = self;
        let role = Role::named(&role)?;
        let counts = row::unsigned(running).and_then(|it| Ok((it, row::unsigned(running_max)?)));
        Some(counts.map(|(running, running_max)| Heartbeat {
            node: NodeId(id),
            address,
            role,
            redis_up,
            running,
            running_max,
            draining,
        }))
    }
}

/// Makes or renews a node's row.
pub(super) async fn heartbeat(pool: &Pool, beat: &Heartbeat) -> sqlx::Result<()> {
    sqlx::query(concat!(
        "INSERT INTO node (id, address, role, redis_up, running, running_max, draining, \
         started_at, heartbeat_at) VALUES ($1, $2, $3, $4, $5, $6, $7, ",
        now!(),
        ", ",
        now!(),
        ") ON CONFLICT (id) DO UPDATE SET address = excluded.address, role = excluded.role, \
         redis_up = excluded.redis_up, running = excluded.running, \
         running_max = excluded.running_max, draining = excluded.draining, \
         heartbeat_at = excluded.heartbeat_at",
    ))
    .bind(beat.node.0)
    .bind(&beat.address)
    .bind(beat.role.as_str())
    .bind(beat.redis_up)
    .bind(i64::from(beat.running))
    .bind(i64::from(beat.running_max))
    .bind(beat.draining)
    .execute(pool)
    .await?;
    Ok(())
}

/// Deletes the rows of nodes that fell silent long ago.
pub(super) async fn forget_silent(pool: &Pool) -> sqlx::Result<()> {
    sqlx::query(concat!("DELETE FROM node WHERE heartbeat_at < ", now_less!("$1")))
        .bind(row::millis(KEPT_AFTER))
        .execute(pool)
        .await?;
    Ok(())
}

/// What those nodes said last that were heard within `alive_within`.
pub(super) async fn alive(pool: &Pool, alive_within: Duration) -> sqlx::Result<Vec<Heartbeat>> {
    let rows: Vec<NodeRow> = sqlx::query_as(concat!(
        "SELECT id, address, role, redis_up, running, running_max, draining FROM node \
         WHERE heartbeat_at > ",
        now_less!("$1"),
        " ORDER BY id LIMIT $2",
    ))
    .bind(row::millis(alive_within))
    .bind(NODES_MAX)
    .fetch_all(pool)
    .await?;
    rows.into_iter().filter_map(NodeRow::read).collect()
}

/// Deletes a node's row and releases what it owns.
pub(super) async fn retire(pool: &Pool, node: NodeId) -> sqlx::Result<()> {
    let mut transaction = begin(pool).await?;
    claim::release_all(&mut transaction, node).await?;
    sqlx::query("DELETE FROM node WHERE id = $1").bind(node.0).execute(&mut *transaction).await?;
    transaction.commit().await
}
