//! Ending a generation: its answer, its state and the outbox in one transaction.

use std::sync::Arc;

use uuid::Uuid;

use super::{Pool, Time, Transaction, begin, message, outbox, row, search, session};
use crate::domain::{
    Author, Event, EventId, EventKind, Message, MessageId, Outcome, SessionId, Usage,
};
use crate::store::{Finish, Finished, Outgoing};

/// Five statements. The first changes the generation's row only where `owner` and `attempt` have
/// it and it has not ended, so of racing calls one goes on.
pub(super) async fn finish(pool: &Pool, finish: &Finish) -> sqlx::Result<Finished> {
    row::storable(&finish.content)?;
    let mut transaction = begin(pool).await?;
    let Some(ended) = end(&mut transaction, finish).await? else {
        let refused = refusal(&mut transaction, finish).await?;
        transaction.rollback().await?;
        return Ok(refused);
    };
    let session: SessionId = row::id(&ended.session_id)?;
    let place = session::next_place(&mut transaction, &session).await?;
    let place = place.ok_or(sqlx::Error::RowNotFound)?;
    let message = answer(finish, &ended, session, &place)?;
    let outgoing = Outgoing {
        session: message.session.clone(),
        revision: place.revision,
        event: Event {
            id: EventId::new(),
            at: place.at,
            kind: ending(finish, Arc::new(message.clone())),
        },
    };
    message::insert(&mut transaction, &message).await?;
    search::index(&mut transaction, &message).await?;
    outbox::insert(&mut transaction, &outgoing, place.at).await?;
    transaction.commit().await?;
    Ok(Finished::Stored { message, outgoing })
}

/// What the answer needs of its generation.
#[derive(sqlx::FromRow)]
struct Ended {
    session_id: String,
    prompt_message_id: Uuid,
    message_id: Uuid,
    agent_id: String,
}

async fn end(transaction: &mut Transaction, finish: &Finish) -> sqlx::Result<Option<Ended>> {
    let error = match &finish.outcome {
        Outcome::Failed { error } => Some(row::ErrorColumn::json(error)),
        Outcome::Completed { .. } | Outcome::Stopped { .. } => None,
    };
    // One who stopped it without a request of their own is still the one who did.
    let stopped_by = match &finish.outcome {
        Outcome::Stopped { by } => Some(by.as_str()),
        Outcome::Completed { .. } | Outcome::Failed { .. } => None,
    };
    let (provider, model) = finish.answered_by.clone().unzip();
    sqlx::query_as(concat!(
        "UPDATE stream SET status = $4, tokens = $5, usage = $6, error = $7, \
         first_token_at = COALESCE(first_token_at, $8), \
         stop_requested = COALESCE(stop_requested, $9), errors = $10, \
         provider = COALESCE($11, provider), model = COALESCE($12, model), completed_at = ",
        now!(),
        " WHERE id = $1 AND owner_node_id = $2 AND attempt = $3 AND completed_at IS NULL \
         RETURNING session_id, prompt_message_id, message_id, agent_id",
    ))
    .bind(finish.generation.0)
    .bind(finish.owner.0)
    .bind(i64::from(finish.attempt))
    .bind(row::status_word(finish.outcome.status()))
    .bind(row::signed(finish.tokens))
    .bind(row::UsageColumn::json(finish.usage))
    .bind(error)
    .bind(finish.first_token_at.map(Time::from))
    .bind(stopped_by)
    .bind(i64::from(finish.errors))
    .bind(provider)
    .bind(model)
    .fetch_optional(&mut **transaction)
    .await
}

/// Why [`end`] found nothing to change.
async fn refusal(transaction: &mut Transaction, finish: &Finish) -> sqlx::Result<Finished> {
    let over: Option<(Option<Time>,)> =
        sqlx::query_as("SELECT completed_at FROM stream WHERE id = $1")
            .bind(finish.generation.0)
            .fetch_optional(&mut **transaction)
            .await?;
    Ok(match over {
        Some((Some(_),)) => Finished::AlreadyFinal,
        Some((None,)) | None => Finished::NotOwner,
    })
}

fn answer(
    finish: &Finish,
    ended: &Ended,
    session: SessionId,
    place: &session::Place,
) -> sqlx::Result<Message> {
    Ok(Message {
        id: MessageId(ended.message_id),
        session,
        ordinal: place.ordinal,
        user: None,
        agent: Some(row::id(&ended.agent_id)?),
        author: Author::Assistant,
        content: finish.content.clone(),
        metadata: finish.metadata.clone(),
        tokens: Some(finish.tokens),
        // What the message's row keeps of it.
        usage: Some(Usage { cached_tokens: 0, ..finish.usage }),
        parent: Some(MessageId(ended.prompt_message_id)),
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        created_at: place.at,
        updated_at: place.at,
        reactions: Vec::new(),
        attachments: Vec::new(),
    })
}

fn ending(finish: &Finish, message: Arc<Message>) -> EventKind {
    let generation = finish.generation;
    match &finish.outcome {
        Outcome::Completed { reason } => EventKind::GenerationCompleted {
            generation,
            message,
            reason: reason.clone(),
            usage: finish.usage,
        },
        Outcome::Stopped { by } => {
            EventKind::GenerationStopped { generation, message, by: by.clone() }
        }
        Outcome::Failed { error } => {
            EventKind::GenerationFailed { generation, message, error: error.clone() }
        }
    }
}
