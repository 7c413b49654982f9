//! Finding messages by their words.

use super::{Connection, Pool};
use crate::domain::{Message, MessageId, SessionId};
use crate::store::Found;

/// Makes a message found by what it says now. One statement; none where it has no word.
pub(super) async fn index(_connection: &mut Connection, _message: &Message) -> sqlx::Result<()> {
    Ok(())
}

/// Makes a message found no longer. One statement.
pub(super) async fn forget(_connection: &mut Connection, _id: MessageId) -> sqlx::Result<()> {
    Ok(())
}

pub(super) async fn search(
    _pool: &Pool,
    _session: &SessionId,
    _query: &str,
    _limit: u32,
    _offset: u64,
) -> sqlx::Result<Found> {
    todo!()
}
