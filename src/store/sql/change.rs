//! Changing a stored message: its text, its attachments, its end.

use super::Pool;
use crate::domain::{AttachmentId, MessageId, NewAttachment, UserId};
use crate::store::{Attached, Changed, Outgoing};

pub(super) async fn edit(
    _pool: &Pool,
    _id: MessageId,
    _content: &str,
) -> sqlx::Result<Option<Changed>> {
    todo!()
}

pub(super) async fn delete(
    _pool: &Pool,
    _id: MessageId,
    _by: &UserId,
) -> sqlx::Result<Option<Outgoing>> {
    todo!()
}

pub(super) async fn attach(
    _pool: &Pool,
    _id: MessageId,
    _files: &[NewAttachment],
    _max: u32,
) -> sqlx::Result<Attached> {
    todo!()
}

pub(super) async fn attachment(_pool: &Pool, _id: AttachmentId) -> sqlx::Result<Option<MessageId>> {
    todo!()
}

pub(super) async fn detach(_pool: &Pool, _id: AttachmentId) -> sqlx::Result<Option<Changed>> {
    todo!()
}
