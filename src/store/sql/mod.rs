//! The statements, each written once and compiled for each database: `super` is the module of
//! the one at hand, which brings its types, its clock and its locks.
//!
//! Locks are taken in one order: a user's, a generation's row, its session's row; all else that
//! is changed stands under the session's. The session's
//! row puts everything that is stored in it in order, so ordinals are dense, and the outbox
//! holds a session's events in the order in which they happened.

mod accept;
mod answered;
mod attachment;
mod change;
mod claim;
mod finish;
mod generation;
mod history;
mod member;
mod message;
mod node;
mod outbox;
mod persona;
mod reaction;
mod row;
mod search;
mod send;
mod session;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{
    Connection, Db, Ids, Pool, Time, Transaction, asked_words, begin, ids, kept_words, lock_user,
    passes, put_among_told,
};
use crate::domain::{
    Access, AgentId, AttachmentId, EventId, Generation, GenerationId, Member, Message, MessageId,
    NewAttachment, NodeId, SessionChange, SessionId, UserId,
};
use crate::store::connect::bounded;
use crate::store::{
    Accepted, Answered, Attached, Changed, CreatedSession, Finish, Finished, Found, FoundMessage,
    Heartbeat, History, HistoryPage, Kept, MemberAdded, Missed, NewGeneration, NewMessage,
    NewSession, OutboxPage, Outgoing, Reacted, Seen, Sent, SessionChanged, SessionCursor,
    SessionPage, StopRequested, Store, StoreError,
};
use crate::telemetry::metrics;

/// At which of its heartbeats a node deletes the rows of those that are gone: the first, and then
/// about every eight minutes.
const FORGET_EVERY: u64 = 1000;

/// A store on one database.
pub(in crate::store) struct Sql {
    reads: Pool,
    writes: Pool,
    heartbeats: Pool,
    limit: Duration,
    /// Heartbeats given.
    beats: AtomicU64,
}

impl Sql {
    /// Reads through `reads`, writes through `writes` and gives heartbeats through `heartbeats`,
    /// which may be the same; no operation takes longer than `limit`.
    pub(in crate::store) fn new(
        reads: Pool,
        writes: Pool,
        heartbeats: Pool,
        limit: Duration,
    ) -> Self {
        Self { reads, writes, heartbeats, limit, beats: AtomicU64::new(0) }
    }

    /// Makes the messages found that were stored before there was a search, as many at once as an
    /// operation has time for. Nodes that start together do it together.
    ///
    /// # Errors
    /// [`StoreError`]; what was done until then is kept.
    pub(in crate::store) async fn index_older(&self) -> Result<(), StoreError> {
        while self.run("index messages", search::index_older(&self.writes)).await? {}
        Ok(())
    }

    async fn run<T>(
        &self,
        doing: &'static str,
        task: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let done = bounded(doing, self.limit, passes, task).await;
        metrics::handles().db_query.record(begun.elapsed());
        done
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

    async fn persona_session(
        &self,
        owner: &UserId,
        agent: &AgentId,
    ) -> Result<CreatedSession, StoreError> {
        let found = persona::find_or_make(&self.reads, &self.writes, owner, agent);
        self.run("store persona's session", found).await
    }

    async fn sessions(
        &self,
        user: &UserId,
        after: Option<&SessionCursor>,
        limit: u32,
    ) -> Result<SessionPage, StoreError> {
        self.run("read sessions", session::page(&self.reads, user, after, limit)).await
    }

    async fn session_ids(&self, user: &UserId, limit: u32) -> Result<Vec<SessionId>, StoreError> {
        self.run("read session ids", session::ids_of(&self.reads, user, limit)).await
    }

    async fn update_session(
        &self,
        id: &SessionId,
        change: &SessionChange,
    ) -> Result<Option<SessionChanged>, StoreError> {
        self.run("change session", session::update(&self.writes, id, change)).await
    }

    async fn delete_session(
        &self,
        id: &SessionId,
        by: &UserId,
    ) -> Result<Option<Outgoing>, StoreError> {
        self.run("delete session", session::delete(&self.writes, id, by)).await
    }

    async fn members(&self, id: &SessionId, limit: u32) -> Result<Vec<Member>, StoreError> {
        self.run("read members", member::all(&self.reads, id, limit)).await
    }

    async fn add_member(
        &self,
        id: &SessionId,
        user: &UserId,
        max: u32,
    ) -> Result<MemberAdded, StoreError> {
        self.run("store member", member::add(&self.writes, id, user, max)).await
    }

    async fn remove_member(
        &self,
        id: &SessionId,
        user: &UserId,
    ) -> Result<Option<Outgoing>, StoreError> {
        self.run("remove member", member::remove(&self.writes, id, user)).await
    }

    async fn send(&self, new: &NewMessage) -> Result<Sent, StoreError> {
        self.run("store message", send::send(&self.writes, new)).await
    }

    async fn message(
        &self,
        id: MessageId,
        user: &UserId,
    ) -> Result<Option<FoundMessage>, StoreError> {
        self.run("read message", message::find_for(&self.reads, id, user)).await
    }

    async fn edit(&self, id: MessageId, content: &str) -> Result<Option<Changed>, StoreError> {
        self.run("change message", change::edit(&self.writes, id, content)).await
    }

    async fn delete_message(
        &self,
        id: MessageId,
        by: &UserId,
    ) -> Result<Option<Outgoing>, StoreError> {
        self.run("delete message", change::delete(&self.writes, id, by)).await
    }

    async fn react(
        &self,
        id: MessageId,
        user: &UserId,
        emoji: &str,
        max: u32,
    ) -> Result<Reacted, StoreError> {
        self.run("store reaction", reaction::toggle(&self.writes, id, user, emoji, max)).await
    }

    async fn see(
        &self,
        session: &SessionId,
        id: MessageId,
        user: &UserId,
    ) -> Result<Seen, StoreError> {
        self.run("store read position", member::see(&self.writes, session, id, user)).await
    }

    async fn attach(
        &self,
        id: MessageId,
        files: &[NewAttachment],
        max: u32,
    ) -> Result<Attached, StoreError> {
        self.run("store attachments", change::attach(&self.writes, id, files, max)).await
    }

    async fn attachment(&self, id: AttachmentId) -> Result<Option<MessageId>, StoreError> {
        self.run("read attachment", change::attachment(&self.reads, id)).await
    }

    async fn detach(&self, id: AttachmentId) -> Result<Option<Changed>, StoreError> {
        self.run("delete attachment", change::detach(&self.writes, id)).await
    }

    async fn history(
        &self,
        session: &SessionId,
        page: &HistoryPage,
    ) -> Result<Option<History>, StoreError> {
        self.run("read history", history::page(&self.reads, session, page)).await
    }

    async fn thread(&self, id: MessageId, limit: u32, offset: u64) -> Result<Found, StoreError> {
        self.run("read thread", history::thread(&self.reads, id, limit, offset)).await
    }

    async fn search(
        &self,
        session: &SessionId,
        query: &str,
        limit: u32,
        offset: u64,
    ) -> Result<Found, StoreError> {
        let found = search::search(&self.reads, session, query, limit, offset);
        self.run("search messages", found).await
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

    async fn owned(&self, owner: NodeId) -> Result<Vec<(GenerationId, u32)>, StoreError> {
        self.run("read what a node owns", claim::owned(&self.writes, owner)).await
    }

    async fn claimable(
        &self,
        dead_after: Duration,
        unclaimed_after: Duration,
        limit: u32,
    ) -> Result<Vec<Generation>, StoreError> {
        let found = claim::claimable(&self.reads, dead_after, unclaimed_after, limit);
        self.run("look for generations that nobody runs", found).await
    }

    async fn claim(
        &self,
        found: &Generation,
        claimer: NodeId,
        dead_after: Duration,
        unclaimed_after: Duration,
    ) -> Result<Option<Generation>, StoreError> {
        let claimed = claim::claim(&self.writes, found, claimer, dead_after, unclaimed_after);
        self.run("claim generation", claimed).await
    }

    async fn release(
        &self,
        id: GenerationId,
        owner: NodeId,
        attempt: u32,
    ) -> Result<bool, StoreError> {
        let released = claim::release(&self.writes, id, owner, attempt, 0);
        self.run("release generation", released).await
    }

    async fn lose(
        &self,
        id: GenerationId,
        owner: NodeId,
        attempt: u32,
    ) -> Result<bool, StoreError> {
        let lost = claim::release(&self.writes, id, owner, attempt, 1);
        self.run("release lost generation", lost).await
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

    async fn answers_after(
        &self,
        session: &SessionId,
        ordinal: u64,
        limit: u32,
    ) -> Result<Vec<Answered>, StoreError> {
        self.run("read answers", answered::after(&self.reads, session, ordinal, limit)).await
    }

    async fn messages_after(
        &self,
        session: &SessionId,
        ordinal: u64,
        limit: u32,
        answers_only: bool,
    ) -> Result<Vec<Kept>, StoreError> {
        let read = answered::messages_after(&self.reads, session, ordinal, limit, answers_only);
        self.run("read messages", read).await
    }

    async fn outbox(
        &self,
        age: Duration,
        after: Option<i64>,
        limit: u32,
    ) -> Result<OutboxPage, StoreError> {
        self.run("read outbox", outbox::older_than(&self.reads, age, after, limit)).await
    }

    async fn outbox_between(
        &self,
        session: &SessionId,
        after: u64,
        before: u64,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let rows = outbox::between(&self.reads, session, after, before);
        self.run("read outbox", rows).await
    }

    async fn told_between(
        &self,
        session: &SessionId,
        after: u64,
        before: u64,
    ) -> Result<Vec<Outgoing>, StoreError> {
        self.run("read what was told", outbox::told(&self.reads, session, after, before)).await
    }

    async fn last_told(&self, limit: u32) -> Result<Vec<(SessionId, u64)>, StoreError> {
        self.run("read what was told", outbox::last_told(&self.reads, limit)).await
    }

    async fn delete_outgoing(&self, events: &[EventId]) -> Result<(), StoreError> {
        self.run("delete from outbox", outbox::delete(&self.writes, events)).await
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<(), StoreError> {
        self.run("store heartbeat", node::heartbeat(&self.heartbeats, beat)).await?;
        if self.beats.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            let forgotten = self.run("forget nodes", node::forget_silent(&self.heartbeats)).await;
            // The node lives all the same, and the rows do no harm.
            if let Err(error) = forgotten {
                tracing::debug!(%error, "forget nodes that are silent");
            }
        }
        Ok(())
    }

    async fn nodes(&self, alive_within: Duration) -> Result<Vec<Heartbeat>, StoreError> {
        self.run("read nodes", node::alive(&self.reads, alive_within)).await
    }

    async fn retire(&self, node: NodeId) -> Result<(), StoreError> {
        self.run("retire node", node::retire(&self.writes, node)).await
    }

    async fn close(&self) {
        self.reads.close().await;
        self.writes.close().await;
        self.heartbeats.close().await;
    }
}
