//! Storing a message: its attachments, its words and the outbox in one transaction.

use std::sync::Arc;

use uuid::Uuid;

use super::session::{self, Place, Turn};
use super::{Pool, Transaction, attachment, begin, message, outbox, row, search};
use crate::domain::{Attachment, Author, EventKind, Message, MessageId};
use crate::store::{NewMessage, Sent};

/// At most six statements: what was stored before is asked only where a client's id or a parent
/// makes it matter. The session's lock comes before that question, so of two that ask it together
/// one sees the other's answer.
pub(super) async fn send(pool: &Pool, new: &NewMessage) -> sqlx::Result<Sent> {
    row::storable(&new.content)?;
    new.client_message_id.as_deref().map(row::storable).transpose()?;
    let attachments = attachment::named(&new.attachments)?;
    let mut transaction = begin(pool).await?;
    let place = session::next_place(&mut transaction, &new.session).await?;
    let Some(place) = place.filter(|place| !place.deleted) else {
        transaction.rollback().await?;
        return Ok(Sent::NoSession);
    };
    if new.client_message_id.is_some() || new.parent.is_some() {
        let before = before(&mut transaction, new).await?;
        if let Some(known) = before.known {
            let message = message::find(&mut transaction, MessageId(known)).await?;
            transaction.rollback().await?;
            return Ok(Sent::Known { message });
        }
        if new.parent.is_some() && !before.parent {
            transaction.rollback().await?;
            return Ok(Sent::NoParent);
        }
    }
    let message = message(new, attachments, &place);
    message::insert(&mut transaction, &message).await?;
    attachment::insert(&mut transaction, message.id, &message.attachments, place.at).await?;
    search::index(&mut transaction, &message).await?;
    let turn = Turn { session: new.session.clone(), revision: place.revision, at: place.at };
    let told = EventKind::MessageNew(Arc::new(message.clone()));
    let outgoing = outbox::tell(&mut transaction, turn, told).await?;
    transaction.commit().await?;
    Ok(Sent::New { message, outgoing })
}

/// What was stored before this message.
#[derive(sqlx::FromRow)]
struct Before {
    /// The message of this user in this session with the same client's id.
    known: Option<Uuid>,
    /// Whether the session has the parent.
    parent: bool,
}

async fn before(transaction: &mut Transaction, new: &NewMessage) -> sqlx::Result<Before> {
    sqlx::query_as(
        "SELECT (SELECT id FROM message WHERE session_id = $1 AND user_id = $2 \
         AND client_message_id = $3) AS known, \
         EXISTS (SELECT 1 FROM message WHERE id = $4 AND session_id = $1 \
         AND deleted_at IS NULL) AS parent",
    )
    .bind(new.session.as_str())
    .bind(new.user.as_str())
    .bind(new.client_message_id.as_deref())
    .bind(new.parent.map(|parent| parent.0))
    .fetch_one(&mut **transaction)
    .await
}

/// What a person writes, as it is stored for the first time.
pub(super) fn message(new: &NewMessage, attachments: Vec<Attachment>, place: &Place) -> Message {
    Message {
        id: MessageId::new(),
        session: new.session.clone(),
        ordinal: place.ordinal,
        user: Some(new.user.clone()),
        agent: None,
        author: Author::User,
        content: new.content.clone(),
        metadata: row::Object::new(),
        tokens: None,
        usage: None,
        parent: new.parent,
        client_message_id: new.client_message_id.clone(),
        edited_at: None,
        deleted_at: None,
        created_at: place.at,
        updated_at: place.at,
        reactions: Vec::new(),
        attachments,
    }
}
