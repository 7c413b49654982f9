//! Emojis under messages.

use super::Pool;
use crate::domain::{MessageId, UserId};
use crate::store::Reacted;

pub(super) async fn toggle(
    _pool: &Pool,
    _id: MessageId,
    _user: &UserId,
    _emoji: &str,
    _max: u32,
) -> sqlx::Result<Reacted> {
    todo!()
}
