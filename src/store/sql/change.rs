//! Changing a stored message: its text, its attachments, its end. Each in one transaction under
//! the session's lock.

use std::sync::Arc;

use uuid::Uuid;

use super::session::{self, Turn};
use super::{Pool, Time, Transaction, attachment, begin, message, outbox, row, search};
use crate::domain::{AttachmentId, EventKind, Message, MessageId, NewAttachment, UserId};
use crate::store::{Attached, Changed, Outgoing};

/// Six statements.
pub(super) async fn edit(
    pool: &Pool,
    id: MessageId,
    content: &str,
) -> sqlx::Result<Option<Changed>> {
    row::storable(content)?;
    let mut transaction = begin(pool).await?;
    let Some((turn, message)) = change(&mut transaction, id, Some(content)).await? else {
        transaction.rollback().await?;
        return Ok(None);
    };
    search::index(&mut transaction, &message).await?;
    let outgoing = tell_edited(&mut transaction, turn, &message).await?;
    transaction.commit().await?;
    Ok(Some(Changed { message, outgoing }))
}

/// Four statements.
pub(super) async fn delete(
    pool: &Pool,
    id: MessageId,
    by: &UserId,
) -> sqlx::Result<Option<Outgoing>> {
    let mut transaction = begin(pool).await?;
    let Some(turn) = session::next_turn_of(&mut transaction, id).await? else {
        transaction.rollback().await?;
        return Ok(None);
    };
    let deleted = sqlx::query(
        "UPDATE message SET deleted_at = $2, updated_at = $2 \
         WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id.0)
    .bind(Time::from(turn.at))
    .execute(&mut *transaction)
    .await?;
    if deleted.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    search::forget(&mut transaction, id).await?;
    let kind = EventKind::MessageDeleted { message: id, by: by.clone(), at: turn.at };
    let outgoing = outbox::tell(&mut transaction, turn, kind).await?;
    transaction.commit().await?;
    Ok(Some(outgoing))
}

/// Six statements.
pub(super) async fn attach(
    pool: &Pool,
    id: MessageId,
    files: &[NewAttachment],
    max: u32,
) -> sqlx::Result<Attached> {
    let attachments = attachment::named(files)?;
    let mut transaction = begin(pool).await?;
    let Some((turn, mut message)) = change(&mut transaction, id, None).await? else {
        transaction.rollback().await?;
        return Ok(Attached::Gone);
    };
    message.attachments.extend(attachments.iter().cloned());
    if message.attachments.len() > usize::try_from(max).unwrap_or(usize::MAX) {
        transaction.rollback().await?;
        return Ok(Attached::TooMany);
    }
    attachment::insert(&mut transaction, id, &attachments, turn.at).await?;
    let outgoing = tell_edited(&mut transaction, turn, &message).await?;
    transaction.commit().await?;
    Ok(Attached::Done { attachments, outgoing })
}

/// The message that has an attachment, neither it nor its session deleted.
const MESSAGE_OF: &str = "SELECT message.id FROM message_attachment \
     JOIN message ON message.id = message_id JOIN session ON session.id = session_id \
     WHERE message_attachment.id = $1 AND message.deleted_at IS NULL \
     AND session.deleted_at IS NULL";

/// One statement.
pub(super) async fn attachment(pool: &Pool, id: AttachmentId) -> sqlx::Result<Option<MessageId>> {
    let found: Option<(Uuid,)> = sqlx::query_as(MESSAGE_OF).bind(id.0).fetch_optional(pool).await?;
    Ok(found.map(|(message,)| MessageId(message)))
}

/// Seven statements.
pub(super) async fn detach(pool: &Pool, id: AttachmentId) -> sqlx::Result<Option<Changed>> {
    let mut transaction = begin(pool).await?;
    let Some(changed) = take_away(&mut transaction, id).await? else {
        transaction.rollback().await?;
        return Ok(None);
    };
    transaction.commit().await?;
    Ok(Some(changed))
}

async fn take_away(
    transaction: &mut Transaction,
    id: AttachmentId,
) -> sqlx::Result<Option<Changed>> {
    let found: Option<(Uuid,)> =
        sqlx::query_as(MESSAGE_OF).bind(id.0).fetch_optional(&mut **transaction).await?;
    let Some((message,)) = found else { return Ok(None) };
    let changed = change(transaction, MessageId(message), None).await?;
    let Some((turn, mut message)) = changed else { return Ok(None) };
    // Another may have taken it away before this one had the session's lock.
    let taken = sqlx::query("DELETE FROM message_attachment WHERE id = $1")
        .bind(id.0)
        .execute(&mut **transaction)
        .await?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    message.attachments.retain(|attachment| attachment.id != id);
    let outgoing = tell_edited(transaction, turn, &message).await?;
    Ok(Some(Changed { message, outgoing }))
}

/// Takes the turn of a message's session and notes in the message when it was changed, with its
/// new text where that is what changes. The message as it is then; `None` where there is none, or
/// it was deleted. Four statements.
async fn change(
    transaction: &mut Transaction,
    id: MessageId,
    content: Option<&str>,
) -> sqlx::Result<Option<(Turn, Message)>> {
    let Some(turn) = session::next_turn_of(transaction, id).await? else { return Ok(None) };
    let message = message::update(transaction, id, content, turn.at).await?;
    Ok(message.map(|message| (turn, message)))
}

async fn tell_edited(
    transaction: &mut Transaction,
    turn: Turn,
    message: &Message,
) -> sqlx::Result<Outgoing> {
    let kind = EventKind::MessageEdited(Arc::new(message.clone()));
    outbox::tell(transaction, turn, kind).await
}
