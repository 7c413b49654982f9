//! Whose generations are: which of them nobody runs, and how they change hands.

use std::time::Duration;

use uuid::Uuid;

use super::generation::{GenerationRow, generation_columns};
use super::{Pool, Transaction, row};
use crate::domain::{Generation, GenerationId, NodeId};

/// The owner of a generation that was released: no node has this id, so none is ever heard of it.
const NOBODY: Uuid = Uuid::nil();

/// Whether an unfinished generation is run by nobody, given a dead node's silence, a pending
/// generation's age (both in milliseconds) and [`NOBODY`]. The list of those who live does not
/// depend on the generation, so it is made once for all that are looked at.
macro_rules! nobody_runs {
    ($dead_after:literal, $unclaimed_after:literal, $nobody:literal) => {
        concat!(
            "completed_at IS NULL AND (owner_node_id = ",
            $nobody,
            " OR (status = 'pending' AND created_at <= ",
            now_less!($unclaimed_after),
            ") OR (created_at <= ",
            now_less!($dead_after),
            " AND owner_node_id NOT IN (SELECT id FROM node WHERE heartbeat_at > ",
            now_less!($dead_after),
            ")))",
        )
    };
}

/// The unfinished generations that nobody runs, oldest first. Reads the index of the unfinished.
pub(super) async fn claimable(
    pool: &Pool,
    dead_after: Duration,
    unclaimed_after: Duration,
    limit: u32,
) -> sqlx::Result<Vec<Generation>> {
    let rows: Vec<GenerationRow> = sqlx::query_as(concat!(
        "SELECT ",
        generation_columns!(),
        " FROM stream WHERE ",
        nobody_runs!("$1", "$2", "$3"),
        " ORDER BY created_at, id LIMIT $4",
    ))
    .bind(row::millis(dead_after))
    .bind(row::millis(unclaimed_after))
    .bind(NOBODY)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(GenerationRow::read).collect()
}

/// Begins the next attempt, of another owner. It streams from here on, since one that is pending
/// would be found again by its age.
pub(super) async fn claim(
    pool: &Pool,
    found: &Generation,
    claimer: NodeId,
    dead_after: Duration,
    unclaimed_after: Duration,
) -> sqlx::Result<Option<Generation>> {
    sqlx::query_as::<_, GenerationRow>(concat!(
        "UPDATE stream SET owner_node_id = $7, attempt = attempt + 1, status = 'streaming', \
         losses = losses + CASE WHEN owner_node_id = $3 THEN 0 ELSE 1 END, started_at = ",
        now!(),
        " WHERE id = $4 AND owner_node_id = $5 AND attempt = $6 AND ",
        nobody_runs!("$1", "$2", "$3"),
        " RETURNING ",
        generation_columns!(),
    ))
    .bind(row::millis(dead_after))
    .bind(row::millis(unclaimed_after))
    .bind(NOBODY)
    .bind(found.id.0)
    .bind(found.owner.0)
    .bind(i64::from(found.attempt))
    .bind(claimer.0)
    .fetch_optional(pool)
    .await?
    .map(GenerationRow::read)
    .transpose()
}

/// What `owner` has unfinished.
pub(super) async fn owned(pool: &Pool, owner: NodeId) -> sqlx::Result<Vec<(GenerationId, u32)>> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT id, attempt FROM stream WHERE owner_node_id = $1 AND completed_at IS NULL",
    )
    .bind(owner.0)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(|(id, attempt)| Ok((GenerationId(id), row::unsigned(attempt)?))).collect()
}

/// Leaves one generation to nobody; `losses` is how often more it was lost.
pub(super) async fn release(
    pool: &Pool,
    id: GenerationId,
    owner: NodeId,
    attempt: u32,
    losses: u32,
) -> sqlx::Result<bool> {
    let released = sqlx::query(
        "UPDATE stream SET owner_node_id = $4, losses = losses + $5 WHERE id = $1 \
         AND owner_node_id = $2 AND attempt = $3 AND completed_at IS NULL",
    )
    .bind(id.0)
    .bind(owner.0)
    .bind(i64::from(attempt))
    .bind(NOBODY)
    .bind(i64::from(losses))
    .execute(pool)
    .await?;
    Ok(released.rows_affected() == 1)
}

/// Leaves all that a node has unfinished to nobody.
pub(super) async fn release_all(transaction: &mut Transaction, owner: NodeId) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE stream SET owner_node_id = $2 WHERE owner_node_id = $1 AND completed_at IS NULL",
    )
    .bind(owner.0)
    .bind(NOBODY)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
