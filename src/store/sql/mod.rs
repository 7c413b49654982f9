//! The statements, each written once and compiled for each database: `super` is the module of
//! the one at hand, which brings its types, its clock and its locks.
//!
//! Locks are taken in one order: a user's, a generation's row, its session's row. The session's
//! row puts everything that is stored in it in order, so ordinals are dense, and the outbox
//! holds a session's events in the order in which they happened.

mod accept;
mod finish;
mod generation;
mod message;
mod outbox;
mod row;
mod session;

use std::time::Duration;

use async_trait::async_trait;

use super::{Connection, Db, Ids, Pool, Time, Transaction, begin, ids, lock_user, passes};
use crate::domain::{
    EventId, Generation, GenerationId, Message, MessageId, NodeId, SessionId, UserId,
};
use crate::store::connect::bounded;
use crate::store::{
    Accepted, Access, CreatedSession, Finish, Finished, Missed, NewGeneration, NewSession,
    Outgoing, StopRequested, Store, StoreError,
};

/// A store on one database.
pub(in crate::store) struct Sql {
    reads: Pool,
    writes: Pool,
    limit: Duration,
}

impl Sql {
    /// Reads through `reads` and writes through `writes`, which may be the same; no operation
    /// takes longer than `limit`.
    pub(in crate::store) fn new(reads: Pool, writes: Pool, limit: Duration) -> Self {
        Self { reads, writes, limit }
    }

    async fn run<T>(
        &self,
        doing: &'static str,
        task: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, StoreError> {
        bounded(doing, self.limit, passes, task).await
    }
}

#[async_trait]
impl Store for Sql {
    async fn ping(&self) -> Result<(), StoreError> {
        let answer = sqlx::query("SELECT 1").execute(&self.reads);
        self.run("ping database", answer).await.map(drop)
    }

    async fn access(&self, id: &SessionId, user: &UserId) -> Result<Option<Access>, StoreError> {
        self.run("read session", session::access(&self.reads, id, user)).await
    }

    async fn create_session(&self, new: &NewSession) -> Result<CreatedSession, StoreError> {
        self.run("store session", session::create(&self.writes, new)).await
    }

    async fn accept(&self, new: &NewGeneration) -> Result<Accepted, StoreError> {
        self.run("store prompt", accept::accept(&self.writes, new)).await
    }

    async fn begin(
        &self,
        id: GenerationId,
        owner: NodeId,
        attempt: u32,
    ) -> Result<bool, StoreError> {
        let begun = generation::begin(&self.writes, id, owner, attempt);
        self.run("begin generation", begun).await
    }

    async fn owns(
        &self,
        id: GenerationId,
        owner: NodeId,
        attempt: u32,
    ) -> Result<bool, StoreError> {
        self.run("read owner", generation::owns(&self.reads, id, owner, attempt)).await
    }

    async fn generation(&self, id: GenerationId) -> Result<Option<Generation>, StoreError> {
        self.run("read generation", async {
            generation::find(&mut *self.reads.acquire().await?, id).await
        })
        .await
    }

    async fn finish(&self, finish: &Finish) -> Result<Finished, StoreError> {
        self.run("store answer", finish::finish(&self.writes, finish)).await
    }

    async fn request_stop(
        &self,
        id: GenerationId,
        by: &UserId,
    ) -> Result<StopRequested, StoreError> {
        self.run("store stop request", generation::request_stop(&self.writes, id, by)).await
    }

    async fn stop_requests(
        &self,
        owner: NodeId,
    ) -> Result<Vec<(GenerationId, UserId)>, StoreError> {
        self.run("read stop requests", generation::stop_requests(&self.reads, owner)).await
    }

    async fn orphans(
        &self,
        dead_after: Duration,
        limit: u32,
    ) -> Result<Vec<Generation>, StoreError> {
        self.run("read orphans", generation::orphans(&self.reads, dead_after, limit)).await
    }

    async fn context(
        &self,
        session: &SessionId,
        last: MessageId,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        self.run("read context", message::context(&self.reads, session, last, limit)).await
    }

    async fn missed(
        &self,
        session: &SessionId,
        last: MessageId,
        limit: u32,
    ) -> Result<Missed, StoreError> {
        let missed = message::missed(&self.reads, session, last, limit);
        self.run("read missed messages", missed).await
    }

    async fn outbox(&self, age: Duration, limit: u32) -> Result<Vec<Outgoing>, StoreError> {
        self.run("read outbox", outbox::older_than(&self.reads, age, limit)).await
    }

    async fn delete_outgoing(&self, events: &[EventId]) -> Result<(), StoreError> {
        self.run("delete from outbox", outbox::delete(&self.writes, events)).await
    }

    async fn heartbeat(
        &self,
        node: NodeId,
        address: &str,
        redis_up: bool,
    ) -> Result<(), StoreError> {
        let beat = sqlx::query(concat!(
            "INSERT INTO node (id, address, started_at, heartbeat_at, redis_up) VALUES ($1, $2, ",
            now!(),
            ", ",
            now!(),
            ", $3) ON CONFLICT (id) DO UPDATE SET address = excluded.address, \
             heartbeat_at = excluded.heartbeat_at, redis_up = excluded.redis_up",
        ))
        .bind(node.0)
        .bind(address)
        .bind(redis_up)
        .execute(&self.writes);
        self.run("store heartbeat", beat).await.map(drop)
    }

    async fn close(&self) {
        self.reads.close().await;
        self.writes.close().await;
    }
}
