//! Pages of a session's messages, and threads.

use super::Pool;
use crate::domain::{MessageId, SessionId};
use crate::store::{Found, History, HistoryPage};

pub(super) async fn page(
    _pool: &Pool,
    _session: &SessionId,
    _page: &HistoryPage,
) -> sqlx::Result<Option<History>> {
    todo!()
}

pub(super) async fn thread(
    _pool: &Pool,
    _id: MessageId,
    _limit: u32,
    _offset: u64,
) -> sqlx::Result<Found> {
    todo!()
}
