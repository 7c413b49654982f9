//! Generations: who runs them, how far they are, and who asked to stop them.

use sqlx::types::Json;
use uuid::Uuid;

use super::row::{self, ConfigColumn};
use super::{Connection, Db, Pool, Time};
use crate::domain::{Generation, GenerationId, MessageId, NodeId, Timestamp, UserId};
use crate::store::StopRequested;

/// The columns of a [`GenerationRow`].
macro_rules! generation_columns {
    () => {
        "id, session_id, user_id, prompt_message_id, message_id, agent_id, provider, model, \
         status, config, owner_node_id, attempt, stop_requested, created_at, started_at, \
         first_token_at, completed_at, tokens, errors, losses"
    };
}
pub(super) use generation_columns;

#[derive(sqlx::FromRow)]
pub(super) struct GenerationRow {
    id: Uuid,
    session_id: String,
    user_id: String,
    prompt_message_id: Uuid,
    message_id: Uuid,
    agent_id: String,
    provider: String,
    model: String,
    status: String,
    config: Json<ConfigColumn>,
    owner_node_id: Uuid,
    attempt: i64,
    stop_requested: Option<String>,
    created_at: Time,
    started_at: Option<Time>,
    first_token_at: Option<Time>,
    completed_at: Option<Time>,
    tokens: Option<i64>,
    errors: i64,
    losses: i64,
}

impl GenerationRow {
    pub(super) fn read(self) -> sqlx::Result<Generation> {
        Ok(Generation {
            id: GenerationId(self.id),
            session: row::id(&self.session_id)?,
            user: row::id(&self.user_id)?,
            prompt: MessageId(self.prompt_message_id),
            message: MessageId(self.message_id),
            agent: row::id(&self.agent_id)?,
            provider: self.provider,
            model: self.model,
            status: row::status(&self.status)?,
            config: self.config.0.into(),
            owner: NodeId(self.owner_node_id),
            attempt: row::unsigned(self.attempt)?,
            stop_requested: row::id_if_any(self.stop_requested)?,
            created_at: self.created_at.into(),
            started_at: self.started_at.map(Timestamp::from),
            first_token_at: self.first_token_at.map(Timestamp::from),
            completed_at: self.completed_at.map(Timestamp::from),
            tokens: self.tokens.map(row::unsigned).transpose()?,
            errors: row::unsigned(self.errors)?,
            losses: row::unsigned(self.losses)?,
        })
    }
}

/// Stores a new generation.
pub(super) async fn insert(
    connection: &mut Connection,
    generation: &Generation,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO stream (id, session_id, user_id, prompt_message_id, message_id, agent_id, \
         provider, model, status, config, owner_node_id, attempt, created_at, started_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(generation.id.0)
    .bind(generation.session.as_str())
    .bind(generation.user.as_str())
    .bind(generation.prompt.0)
    .bind(generation.message.0)
    .bind(generation.agent.as_str())
    .bind(generation.provider.as_str())
    .bind(generation.model.as_str())
    .bind(row::status_word(generation.status))
    .bind(Json(ConfigColumn::from(&generation.config)))
    .bind(generation.owner.0)
    .bind(i64::from(generation.attempt))
    .bind(Time::from(generation.created_at))
    .bind(generation.started_at.map(Time::from))
    .execute(connection)
    .await?;
    Ok(())
}

/// The generation as it is stored.
pub(super) async fn find(
    connection: &mut Connection,
    id: GenerationId,
) -> sqlx::Result<Option<Generation>> {
    sqlx::query_as::<Db, GenerationRow>(concat!(
        "SELECT ",
        generation_columns!(),
        " FROM stream WHERE id = $1"
    ))
    .bind(id.0)
    .fetch_optional(connection)
    .await?
    .map(GenerationRow::read)
    .transpose()
}

/// The generation that a message started.
pub(super) async fn find_by_prompt(
    connection: &mut Connection,
    prompt: MessageId,
) -> sqlx::Result<Option<Generation>> {
    sqlx::query_as::<Db, GenerationRow>(concat!(
        "SELECT ",
        generation_columns!(),
        " FROM stream WHERE prompt_message_id = $1"
    ))
    .bind(prompt.0)
    .fetch_optional(connection)
    .await?
    .map(GenerationRow::read)
    .transpose()
}

/// Marks a generation as streaming. Once more by the same attempt changes nothing and answers
/// the same, so a call whose answer was lost can be repeated.
pub(super) async fn begin(
    pool: &Pool,
    id: GenerationId,
    owner: NodeId,
    attempt: u32,
) -> sqlx::Result<bool> {
    let begun = sqlx::query(concat!(
        "UPDATE stream SET status = 'streaming', started_at = COALESCE(started_at, ",
        now!(),
        ") WHERE id = $1 AND owner_node_id = $2 AND attempt = $3 AND completed_at IS NULL \
         AND stop_requested IS NULL",
    ))
    .bind(id.0)
    .bind(owner.0)
    .bind(i64::from(attempt))
    .execute(pool)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// Whether `owner` and `attempt` have the generation, unfinished.
pub(super) async fn owns(
    pool: &Pool,
    id: GenerationId,
    owner: NodeId,
    attempt: u32,
) -> sqlx::Result<bool> {
    let (owns,): (bool,) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM stream WHERE id = $1 AND owner_node_id = $2 \
         AND attempt = $3 AND completed_at IS NULL)",
    )
    .bind(id.0)
    .bind(owner.0)
    .bind(i64::from(attempt))
    .fetch_one(pool)
    .await?;
    Ok(owns)
}

/// Stores who asked first to stop an unfinished generation.
pub(super) async fn request_stop(
    pool: &Pool,
    id: GenerationId,
    by: &UserId,
) -> sqlx::Result<StopRequested> {
    let stored: Option<(Uuid,)> = sqlx::query_as(
        "UPDATE stream SET stop_requested = COALESCE(stop_requested, $2) \
         WHERE id = $1 AND completed_at IS NULL RETURNING owner_node_id",
    )
    .bind(id.0)
    .bind(by.as_str())
    .fetch_optional(pool)
    .await?;
    if let Some((owner,)) = stored {
        return Ok(StopRequested::Stored { owner: NodeId(owner) });
    }
    // What has ended stays so: the two statements need no transaction.
    let known: Option<(Uuid,)> = sqlx::query_as("SELECT id FROM stream WHERE id = $1")
        .bind(id.0)
        .fetch_optional(pool)
        .await?;
    Ok(known.map_or(StopRequested::Unknown, |_| StopRequested::AlreadyFinal))
}

/// The unfinished generations of `owner` that somebody asked to stop.
pub(super) async fn stop_requests(
    pool: &Pool,
    owner: NodeId,
) -> sqlx::Result<Vec<(GenerationId, UserId)>> {
    let requests: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT id, stop_requested FROM stream WHERE owner_node_id = $1 \
         AND completed_at IS NULL AND stop_requested IS NOT NULL ORDER BY id LIMIT 1000",
    )
    .bind(owner.0)
    .fetch_all(pool)
    .await?;
    requests.into_iter().map(|(id, by)| Ok((GenerationId(id), row::id(&by)?))).collect()
}
