//! Emojis under messages.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Connection, Ids, Pool, Time, Transaction, begin, outbox, row, session};
use crate::domain::{EventKind, MessageId, Reaction, ReactionCounts, UserId};
use crate::store::{EMOJIS_OWN_MAX, Reacted};

/// Five statements, in one transaction under the session's lock, so that two of one user's calls
/// do not both give.
pub(super) async fn toggle(
    pool: &Pool,
    id: MessageId,
    user: &UserId,
    emoji: &str,
    max: u32,
) -> sqlx::Result<Reacted> {
    row::storable(emoji)?;
    let mut transaction = begin(pool).await?;
    let turn = session::next_turn_of(&mut transaction, id).await?;
    let before = before(&mut transaction, id, user, emoji).await?;
    let (Some(turn), Some(before)) = (turn, before) else {
        transaction.rollback().await?;
        return Ok(Reacted::Gone);
    };
    let full = !before.known && before.emojis >= i64::from(max);
    if full || !before.own && before.given >= i64::from(EMOJIS_OWN_MAX) {
        transaction.rollback().await?;
        return Ok(Reacted::TooMany);
    }
    if before.own {
        take_back(&mut transaction, id, user, emoji).await?;
    } else {
        give(&mut transaction, id, user, emoji, turn.at.into()).await?;
    }
    let added = !before.own;
    let counts = counts(&mut transaction, id).await?;
    let kind = EventKind::ReactionChanged {
        message: id,
        user: user.clone(),
        emoji: emoji.to_owned(),
        added,
        counts: counts.clone(),
    };
    let outgoing = outbox::tell(&mut transaction, turn, kind).await?;
    transaction.commit().await?;
    Ok(Reacted::Done { added, counts, outgoing })
}

/// What a message had before.
#[derive(sqlx::FromRow)]
struct Before {
    /// Whether the user had given the emoji.
    own: bool,
    /// How many the user had given.
    given: i64,
    /// Whether anybody had.
    known: bool,
    /// How many different ones there were.
    emojis: i64,
}

/// `None` where the message was deleted.
async fn before(
    transaction: &mut Transaction,
    id: MessageId,
    user: &UserId,
    emoji: &str,
) -> sqlx::Result<Option<Before>> {
    sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM message_reaction WHERE message_id = $1 AND user_id = $2 \
         AND emoji = $3) AS own, \
         (SELECT count(*) FROM message_reaction WHERE message_id = $1 AND user_id = $2) AS given, \
         EXISTS (SELECT 1 FROM message_reaction WHERE message_id = $1 AND emoji = $3) AS known, \
         (SELECT count(DISTINCT emoji) FROM message_reaction WHERE message_id = $1) AS emojis \
         FROM message WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id.0)
    .bind(user.as_str())
    .bind(emoji)
    .fetch_optional(&mut **transaction)
    .await
}

async fn give(
    transaction: &mut Transaction,
    id: MessageId,
    user: &UserId,
    emoji: &str,
    at: Time,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO message_reaction (id, message_id, user_id, emoji, created_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(Uuid::now_v7())
    .bind(id.0)
    .bind(user.as_str())
    .bind(emoji)
    .bind(at)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn take_back(
    transaction: &mut Transaction,
    id: MessageId,
    user: &UserId,
    emoji: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM message_reaction WHERE message_id = $1 AND user_id = $2 AND emoji = $3",
    )
    .bind(id.0)
    .bind(user.as_str())
    .bind(emoji)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// In the order that [`of`] has.
async fn counts(transaction: &mut Transaction, id: MessageId) -> sqlx::Result<ReactionCounts> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT emoji, count(*) FROM (SELECT emoji, row_number() OVER (ORDER BY created_at, id) \
         AS place FROM message_reaction WHERE message_id = $1) given \
         GROUP BY emoji ORDER BY min(place)",
    )
    .bind(id.0)
    .fetch_all(&mut **transaction)
    .await?;
    rows.into_iter().map(|(emoji, count)| Ok((emoji, row::unsigned(count)?))).collect()
}

/// The reactions of messages, in the order in which each emoji was first given.
pub(super) async fn of(
    connection: &mut Connection,
    messages: Ids,
) -> sqlx::Result<HashMap<Uuid, Vec<Reaction>>> {
    let rows: Vec<(Uuid, String, String)> = sqlx::query_as(concat!(
        "SELECT message_id, emoji, user_id FROM message_reaction WHERE message_id IN (",
        ids!("$1"),
        ") ORDER BY created_at, id",
    ))
    .bind(messages)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<Uuid, Vec<Reaction>> = HashMap::new();
    for (message, emoji, user) in rows {
        let user = row::id(&user)?;
        let reactions = found.entry(message).or_default();
        match reactions.iter_mut().find(|reaction| reaction.emoji == emoji) {
            Some(reaction) => reaction.users.push(user),
            None => reactions.push(Reaction { emoji, users: vec![user] }),
        }
    }
    Ok(found)
}
