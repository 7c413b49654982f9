//! Accepting a prompt: the message, its generation and the outbox in one transaction.

use std::sync::Arc;

use uuid::Uuid;

use super::session::{self, Place, Turn};
use super::{Pool, Transaction, begin, generation, lock_user, message, outbox, row, search, send};
use crate::domain::{EventKind, Generation, GenerationId, Message, MessageId, Status};
use crate::store::{Accepted, NewGeneration, NewMessage};

/// At most seven statements: the user's lock and what was stored before are asked only where a
/// limit, or a client's id, makes them matter. The session's lock comes before the question
/// whether the client's id is known, so of two that ask it together one sees the other's answer.
pub(super) async fn accept(pool: &Pool, new: &NewGeneration) -> sqlx::Result<Accepted> {
    row::storable(&new.prompt)?;
    new.client_message_id.as_deref().map(row::storable).transpose()?;
    let limited = new.user_generations_max > 0;
    let mut transaction = begin(pool).await?;
    if limited {
        lock_user(&mut transaction, &new.user).await?;
    }
    let place = session::next_place(&mut transaction, &new.session).await?;
    let Some(place) = place.filter(|place| !place.deleted) else {
        transaction.rollback().await?;
        return Ok(Accepted::NoSession);
    };
    if limited || new.client_message_id.is_some() {
        let before = before(&mut transaction, new).await?;
        if let Some(known) = before.known {
            let known = read_known(&mut transaction, MessageId(known)).await?;
            transaction.rollback().await?;
            return Ok(known);
        }
        if limited && before.unfinished >= i64::from(new.user_generations_max) {
            transaction.rollback().await?;
            return Ok(Accepted::TooMany);
        }
    }
    let prompt = prompt(new, &place);
    let generation = pending(new, &prompt);
    message::insert(&mut transaction, &prompt).await?;
    search::index(&mut transaction, &prompt).await?;
    generation::insert(&mut transaction, &generation).await?;
    let turn = Turn { session: new.session.clone(), revision: place.revision, at: place.at };
    let told = EventKind::MessageNew(Arc::new(prompt.clone()));
    let outgoing = outbox::tell(&mut transaction, turn, told).await?;
    transaction.commit().await?;
    Ok(Accepted::New { generation, prompt, outgoing: vec![outgoing] })
}

/// What was stored before this prompt.
#[derive(sqlx::FromRow)]
struct Before {
    /// The message of this user in this session with the same client's id.
    known: Option<Uuid>,
    /// How many generations of this user have not ended.
    unfinished: i64,
}

async fn before(transaction: &mut Transaction, new: &NewGeneration) -> sqlx::Result<Before> {
    sqlx::query_as(
        "SELECT (SELECT id FROM message WHERE session_id = $1 AND user_id = $2 \
         AND client_message_id = $3) AS known, \
         (SELECT count(*) FROM stream WHERE user_id = $2 AND completed_at IS NULL) AS unfinished",
    )
    .bind(new.session.as_str())
    .bind(new.user.as_str())
    .bind(new.client_message_id.as_deref())
    .fetch_one(&mut **transaction)
    .await
}

async fn read_known(transaction: &mut Transaction, id: MessageId) -> sqlx::Result<Accepted> {
    let Some(generation) = generation::find_by_prompt(transaction, id).await? else {
        return Ok(Accepted::NotAPrompt);
    };
    Ok(Accepted::Known { generation, prompt: message::find(transaction, id).await? })
}

fn prompt(new: &NewGeneration, place: &Place) -> Message {
    let prompt = NewMessage {
        session: new.session.clone(),
        user: new.user.clone(),
        content: new.prompt.clone(),
        parent: None,
        attachments: Vec::new(),
        client_message_id: new.client_message_id.clone(),
    };
    Message { id: new.prompt_id, ..send::message(&prompt, Vec::new(), place) }
}

fn pending(new: &NewGeneration, prompt: &Message) -> Generation {
    Generation {
        id: GenerationId::new(),
        session: new.session.clone(),
        user: new.user.clone(),
        prompt: prompt.id,
        message: MessageId::new(),
        agent: new.agent.clone(),
        provider: new.provider.clone(),
        model: new.model.clone(),
        status: if new.begun { Status::Streaming } else { Status::Pending },
        config: new.config.clone(),
        owner: new.owner,
        attempt: 1,
        stop_requested: None,
        created_at: prompt.created_at,
        started_at: new.begun.then_some(prompt.created_at),
        first_token_at: None,
        completed_at: None,
        tokens: None,
        errors: 0,
        losses: 0,
    }
}
