//! Storing a message.

use super::Pool;
use crate::store::{NewMessage, Sent};

/// In one transaction.
pub(super) async fn send(_pool: &Pool, _new: &NewMessage) -> sqlx::Result<Sent> {
    todo!()
}
