//! Messages, and how the generations ended whose answers they are: for readers that the log tells
//! no more.

use sqlx::types::Json;
use uuid::Uuid;

use super::message::{self, MessageRow, message_columns};
use super::{Db, Pool, row};
use crate::domain::{GenerationId, Message, Outcome, SessionId, Status, StopReason, Usage};
use crate::store::{Answered, FOUND_MAX, Kept};

/// How a generation ended.
#[derive(sqlx::FromRow)]
struct EndedRow {
    generation: Uuid,
    status: String,
    usage: Option<Json<row::UsageColumn>>,
    error: Option<Json<row::KeptError>>,
    stop_requested: Option<String>,
    attempt: i64,
}

impl EndedRow {
    fn read(self, message: Message) -> sqlx::Result<Answered> {
        let lacks = |what| row::unreadable(format_args!("a generation ended without {what}"));
        let outcome = match row::status(&self.status)? {
            Status::Completed => Outcome::Completed { reason: StopReason::EndTurn },
            Status::Stopped => Outcome::Stopped {
                by: row::id_if_any(self.stop_requested)?.ok_or_else(|| lacks("who stopped it"))?,
            },
            Status::Failed => {
                Outcome::Failed { error: self.error.ok_or_else(|| lacks("its error"))?.0.read()? }
            }
            Status::Pending | Status::Streaming => return Err(lacks("an end")),
        };
        let usage = self.usage.map_or(Usage::default(), |usage| usage.0.into());
        let (generation, attempt) = (GenerationId(self.generation), row::unsigned(self.attempt)?);
        Ok(Answered { generation, outcome, usage, attempt, message })
    }
}

/// A message; the rest is `NULL` where no generation has ended with it.
#[derive(sqlx::FromRow)]
struct KeptRow {
    #[sqlx(flatten)]
    message: MessageRow,
    generation: Option<Uuid>,
    status: Option<String>,
    usage: Option<Json<row::UsageColumn>>,
    error: Option<Json<row::KeptError>>,
    stop_requested: Option<String>,
    attempt: Option<i64>,
}

impl KeptRow {
    fn split(self) -> (MessageRow, Option<EndedRow>) {
        let Self { message, generation, status, usage, error, stop_requested, attempt } = self;
        let ended = generation.zip(status).zip(attempt);
        let ended = ended.map(|((generation, status), attempt)| EndedRow {
            generation,
            status,
            usage,
            error,
            stop_requested,
            attempt,
        });
        (message, ended)
    }
}

/// Three statements.
pub(super) async fn messages_after(
    pool: &Pool,
    session: &SessionId,
    ordinal: u64,
    limit: u32,
    answers_only: bool,
) -> sqlx::Result<Vec<Kept>> {
    let mut connection = pool.acquire().await?;
    let rows: Vec<KeptRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        message_columns!(),
        ", ended.* FROM message LEFT JOIN (SELECT id AS generation, message_id, status, usage, \
         error, stop_requested, attempt FROM stream WHERE completed_at IS NOT NULL) ended \
         ON ended.message_id = message.id WHERE session_id = $1 AND ordinal > $2 AND ordinal <= $3 \
         AND (ended.generation IS NOT NULL OR ($4 AND deleted_at IS NULL)) \
         ORDER BY ordinal LIMIT $5",
    ))
    .bind(session.as_str())
    .bind(row::signed(ordinal))
    .bind(row::signed(ordinal.saturating_add(u64::from(FOUND_MAX))))
    .bind(!answers_only)
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    let (messages, ended): (Vec<_>, Vec<_>) = rows.into_iter().map(KeptRow::split).unzip();
    let messages = message::complete(&mut connection, messages).await?;
    let kept = messages.into_iter().zip(ended).map(|(message, ended)| match ended {
        Some(ended) => ended.read(message).map(Kept::Answer),
        None => Ok(Kept::Said(message)),
    });
    kept.collect()
}

#[derive(sqlx::FromRow)]
struct AnsweredRow {
    #[sqlx(flatten)]
    message: MessageRow,
    #[sqlx(flatten)]
    ended: EndedRow,
}

/// Three statements.
pub(super) async fn after(
    pool: &Pool,
    session: &SessionId,
    ordinal: u64,
    limit: u32,
) -> sqlx::Result<Vec<Answered>> {
    let mut connection = pool.acquire().await?;
    let mut rows: Vec<AnsweredRow> = sqlx::query_as::<Db, _>(concat!(
        "SELECT ",
        message_columns!(),
        ", ended.* FROM message JOIN (SELECT id AS generation, message_id, status, usage, error, \
         stop_requested, attempt FROM stream WHERE completed_at IS NOT NULL) ended \
         ON ended.message_id = message.id WHERE session_id = $1 AND ordinal > $2 AND ordinal > \
         (SELECT last_ordinal FROM session WHERE id = $1) - $3 ORDER BY ordinal DESC LIMIT $4",
    ))
    .bind(session.as_str())
    .bind(row::signed(ordinal))
    .bind(i64::from(FOUND_MAX))
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    rows.reverse();
    let (messages, ended): (Vec<_>, Vec<_>) =
        rows.into_iter().map(|row| (row.message, row.ended)).unzip();
    let messages = message::complete(&mut connection, messages).await?;
    messages.into_iter().zip(ended).map(|(message, ended)| ended.read(message)).collect()
}
