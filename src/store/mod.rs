//! What is kept for ever: sessions, messages, generations, and the outbox of what readers must
//! still hear of.
//!
//! One trait, two databases (PostgreSQL in a cluster, SQLite embedded), one contract suite run on
//! both (`tests/it/store_contract.rs`). It must not know who asks or who listens: authorisation is
//! `chat`'s, delivery the adapter's.
//!
//! The statements stand once, in `sql/`, and are compiled for each database by `postgres` and
//! `sqlite`, which hold what differs. A generation costs a bounded number of them: `accept` at
//! most 7 (5 without a limit and a client's id), `begin` 1, `finish` 5, and one
//! `delete_outgoing` after each append; `claim` and `release` 1 each, where it changes hands. A
//! node's `heartbeat` is 1 however much it runs, and so is `claimable`, which reads the unfinished
//! generations alone. Sending costs at most 6 (4 without a client's id or a
//! parent, and attachments), and changing a message at most 7, however much it has.

mod connect;
mod postgres;
mod records;
mod sqlite;
mod words;

pub use connect::{StoreOptions, connect, migrate};
pub use records::*;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    Access, AgentId, AttachmentId, EventId, Generation, GenerationId, Member, Message, MessageId,
    NewAttachment, NodeId, SessionChange, SessionId, UserId,
};

/// The database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or took too long: a retry may help.
    #[error("{doing}: the database is not available")]
    Unavailable {
        /// What was being done, as in "read session".
        doing: &'static str,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refused, or answered what it should not hold: a retry does not help.
    #[error("{doing}: the database refused or held something unexpected")]
    Unexpected {
        /// What was being done.
        doing: &'static str,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Sessions, messages, generations and the outbox.
///
/// # Cancel safety
/// Every method is one transaction or one statement: dropped before it answers, it has happened
/// whole or not at all.
///
/// # Errors
/// Every method: [`StoreError`].
#[async_trait]
pub trait Store: Send + Sync {
    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The session and what `user` is in it. `None` where there is no such session, or it was
    /// deleted. One statement.
    async fn access(&self, id: &SessionId, user: &UserId) -> Result<Option<Access>, StoreError>;

    /// Makes the session and its owner's membership. Where the id is taken, changes nothing and
    /// answers with what `new.owner` is in the session that has it (`None` where a deleted one
    /// has it). `created` tells the two apart.
    async fn create_session(&self, new: &NewSession) -> Result<CreatedSession, StoreError>;

    /// The user's own session with an agent; made, private and without a title, where there is
    /// none. Of two that ask at once both are answered with the same.
    async fn persona_session(
        &self,
        owner: &UserId,
        agent: &AgentId,
    ) -> Result<CreatedSession, StoreError>;

    /// The user's sessions, last active first (by their last message, else their making), after
    /// `after`.
    async fn sessions(
        &self,
        user: &UserId,
        after: Option<&SessionCursor>,
        limit: u32,
    ) -> Result<SessionPage, StoreError>;

    /// The ids of at most `limit` sessions that the user owns or is a member of, last active
    /// first.
    async fn session_ids(&self, user: &UserId, limit: u32) -> Result<Vec<SessionId>, StoreError>;

    /// Changes a session. `None` where there is none, or it was deleted.
    async fn update_session(
        &self,
        id: &SessionId,
        change: &SessionChange,
    ) -> Result<Option<SessionChanged>, StoreError>;

    /// Deletes a session: it is absent from now on, and its id stays taken. Its unfinished
    /// generations are asked to stop, by `by`. What the outbox holds of it is
    /// `AccessRevoked(Everyone)`. `None` where there is none.
    async fn delete_session(
        &self,
        id: &SessionId,
        by: &UserId,
    ) -> Result<Option<Outgoing>, StoreError>;

    /// At most `limit` of a session's members, the owner first, then by when they joined.
    async fn members(&self, id: &SessionId, limit: u32) -> Result<Vec<Member>, StoreError>;

    /// Makes a user a member, unless the session has `max` of them.
    async fn add_member(
        &self,
        id: &SessionId,
        user: &UserId,
        max: u32,
    ) -> Result<MemberAdded, StoreError>;

    /// Ends a membership, but never the owner's. What the outbox holds of it is
    /// `AccessRevoked(User)`. `None` where there was none.
    async fn remove_member(
        &self,
        id: &SessionId,
        user: &UserId,
    ) -> Result<Option<Outgoing>, StoreError>;

    /// Stores a message and the outbox' `MessageNew` in one transaction. The message gets the
    /// session's next ordinal.
    async fn send(&self, new: &NewMessage) -> Result<Sent, StoreError>;

    /// A message, deleted or not, and what `user` is in its session. `None` where there is no such
    /// message, or its session was deleted.
    async fn message(
        &self,
        id: MessageId,
        user: &UserId,
    ) -> Result<Option<FoundMessage>, StoreError>;

    /// Changes a message's text, and puts `MessageEdited` into the outbox. `None` where there is
    /// no such message, or it was deleted.
    async fn edit(&self, id: MessageId, content: &str) -> Result<Option<Changed>, StoreError>;

    /// Deletes a message: it keeps its place without its content, reactions and attachments. Puts
    /// `MessageDeleted` into the outbox. `None` where there is none, or it was deleted before.
    async fn delete_message(
        &self,
        id: MessageId,
        by: &UserId,
    ) -> Result<Option<Outgoing>, StoreError>;

    /// Gives a message an emoji, or takes it back where the user had given it. Puts
    /// `ReactionChanged` into the outbox. At most `max` different emojis are kept, and at most
    /// [`EMOJIS_OWN_MAX`] of one user, so that nobody leaves none to the others.
    async fn react(
        &self,
        id: MessageId,
        user: &UserId,
        emoji: &str,
        max: u32,
    ) -> Result<Reacted, StoreError>;

    /// Moves a user's read position on to a message; never back. Puts `MessageSeen` into the
    /// outbox.
    async fn see(
        &self,
        session: &SessionId,
        id: MessageId,
        user: &UserId,
    ) -> Result<Seen, StoreError>;

    /// Names further files with a message, at most `max` in all. Puts `MessageEdited` into the
    /// outbox; the message does not count as edited.
    async fn attach(
        &self,
        id: MessageId,
        files: &[NewAttachment],
        max: u32,
    ) -> Result<Attached, StoreError>;

    /// The message that has an attachment. `None` where there is none.
    async fn attachment(&self, id: AttachmentId) -> Result<Option<MessageId>, StoreError>;

    /// Takes an attachment away, and puts `MessageEdited` into the outbox. `None` where there is
    /// none.
    async fn detach(&self, id: AttachmentId) -> Result<Option<Changed>, StoreError>;

    /// A page of a session's messages. `None` where `parent`, `before` or `after` is no message of
    /// it. Its cost does not depend on how many messages there are, but for a large `offset` with
    /// `parent`.
    async fn history(
        &self,
        session: &SessionId,
        page: &HistoryPage,
    ) -> Result<Option<History>, StoreError>;

    /// The replies to a message, the replies to those, and so on, in the order of the session.
    /// Looks at no more than [`FOUND_MAX`].
    async fn thread(&self, id: MessageId, limit: u32, offset: u64) -> Result<Found, StoreError>;

    /// The messages of a session that hold every word of `query`, newest first; deleted ones left
    /// out. Words are compared without case and accents; scripts without spaces are compared by
    /// their characters. A query without a word finds nothing.
    async fn search(
        &self,
        session: &SessionId,
        query: &str,
        limit: u32,
        offset: u64,
    ) -> Result<Found, StoreError>;

    /// Stores a prompt, its generation (`Pending`, attempt 1) and the outbox' `MessageNew` in one
    /// transaction. The prompt gets the session's next ordinal.
    async fn accept(&self, new: &NewGeneration) -> Result<Accepted, StoreError>;

    /// Marks a generation as streaming, if `owner` and `attempt` still own it. `false` where they
    /// do not, or it has ended, or a stop was requested. Changes nothing where it is streaming, as
    /// after [`Store::claim`].
    async fn begin(
        &self,
        id: GenerationId,
        owner: NodeId,
        attempt: u32,
    ) -> Result<bool, StoreError>;

    /// Whether `owner` and `attempt` still own the generation and it has not ended.
    async fn owns(&self, id: GenerationId, owner: NodeId, attempt: u32)
    -> Result<bool, StoreError>;

    /// The generation as it is stored.
    async fn generation(&self, id: GenerationId) -> Result<Option<Generation>, StoreError>;

    /// Stores the answer exactly once, ends the generation, and puts the event that says so into
    /// the outbox, in one transaction guarded by owner and attempt. The answer gets the session's
    /// next ordinal and the id the generation knew from the start.
    async fn finish(&self, finish: &Finish) -> Result<Finished, StoreError>;

    /// Stores who asked to stop a generation that has not ended. A second request changes nothing
    /// and answers the same.
    async fn request_stop(
        &self,
        id: GenerationId,
        by: &UserId,
    ) -> Result<StopRequested, StoreError>;

    /// The unfinished generations of `owner` that somebody asked to stop, at most 1,000.
    async fn stop_requests(&self, owner: NodeId)
    -> Result<Vec<(GenerationId, UserId)>, StoreError>;

    /// The unfinished generations of `owner`, each with its attempt.
    async fn owned(&self, owner: NodeId) -> Result<Vec<(GenerationId, u32)>, StoreError>;

    /// At most `limit` unfinished generations that nobody runs, by the database's clock, oldest
    /// first: released ones; pending ones older than `unclaimed_after`; and those older than
    /// `dead_after` whose owner has given no heartbeat for as long.
    async fn claimable(
        &self,
        dead_after: Duration,
        unclaimed_after: Duration,
        limit: u32,
    ) -> Result<Vec<Generation>, StoreError>;

    /// Makes `claimer` the owner of a generation that is still as [`Store::claimable`] found it,
    /// and begins the next attempt, as `Streaming`. One that was not released counts as lost. A stop that was requested stays. Of racing
    /// claims one succeeds; the others, and those that come too late, are answered `None`. Where
    /// the answer was lost, [`Store::owns`] with the next attempt tells whether this was the one.
    async fn claim(
        &self,
        found: &Generation,
        claimer: NodeId,
        dead_after: Duration,
        unclaimed_after: Duration,
    ) -> Result<Option<Generation>, StoreError>;

    /// Leaves an unfinished generation to whoever claims it first, at once. `false` where `owner`
    /// and `attempt` do not own it any more, or it has ended.
    async fn release(
        &self,
        id: GenerationId,
        owner: NodeId,
        attempt: u32,
    ) -> Result<bool, StoreError>;

    /// As [`Store::release`], of one that `owner` does not run although it should: it counts as
    /// lost, as those of dead nodes do.
    async fn lose(&self, id: GenerationId, owner: NodeId, attempt: u32)
    -> Result<bool, StoreError>;

    /// The newest `limit` messages up to and including `last`, oldest first, deleted ones left
    /// out: the context of an answer. Without reactions and attachments. One statement.
    async fn context(
        &self,
        session: &SessionId,
        last: MessageId,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError>;

    /// At most `limit` messages after `last`, oldest first. Where `last` is no message of this
    /// session: the newest `limit`, `has_more` telling whether there are older ones.
    async fn missed(
        &self,
        session: &SessionId,
        last: MessageId,
        limit: u32,
    ) -> Result<Missed, StoreError>;

    /// The newest `limit` generations of a session that have ended and whose answer's ordinal is
    /// above `ordinal`, in the order of their answers; of those among the last [`FOUND_MAX`]
    /// messages.
    async fn answers_after(
        &self,
        session: &SessionId,
        ordinal: u64,
        limit: u32,
    ) -> Result<Vec<Answered>, StoreError>;

    /// The first `limit` messages of a session above `ordinal`, oldest first, of the next
    /// [`FOUND_MAX`] of them; deleted ones left out, but for answers, whose generations ended all
    /// the same. `answers_only`: those alone. Three statements.
    async fn messages_after(
        &self,
        session: &SessionId,
        ordinal: u64,
        limit: u32,
        answers_only: bool,
    ) -> Result<Vec<Kept>, StoreError>;

    /// At most `limit` outbox rows older than `age` by the database's clock, after `after` (a
    /// page's `next`), in the order they were stored.
    async fn outbox(
        &self,
        age: Duration,
        after: Option<i64>,
        limit: u32,
    ) -> Result<OutboxPage, StoreError>;

    /// What the outbox holds of a session between two revisions, both left out, in their order; at
    /// most 1,000.
    async fn outbox_between(
        &self,
        session: &SessionId,
        after: u64,
        before: u64,
    ) -> Result<Vec<Outgoing>, StoreError>;

    /// As [`Store::outbox_between`], with what stood in the outbox within the last minute.
    async fn told_between(
        &self,
        session: &SessionId,
        after: u64,
        before: u64,
    ) -> Result<Vec<Outgoing>, StoreError>;

    /// The sessions of which events stood in the outbox within the last minute, at most `limit`,
    /// the latest first, and the highest revision of those that do not stand there any more.
    async fn last_told(&self, limit: u32) -> Result<Vec<(SessionId, u64)>, StoreError>;

    /// Takes events out of the outbox, by their ids; those that are gone already are passed over.
    /// For a minute [`Store::told_between`] still has them.
    async fn delete_outgoing(&self, events: &[EventId]) -> Result<(), StoreError>;

    /// Notes that a node is alive, by the database's clock. The first call makes its row. On the
    /// way, now and then, rows of nodes that have been silent for an hour are deleted.
    async fn heartbeat(&self, beat: &Heartbeat) -> Result<(), StoreError>;

    /// What the nodes said last that gave a heartbeat within `alive_within`, by the database's
    /// clock; at most 1,000. Those of the version before are among them, without room.
    async fn nodes(&self, alive_within: Duration) -> Result<Vec<Heartbeat>, StoreError>;

    /// A node says that it is gone: its row is deleted, and what it owned is found by
    /// [`Store::claimable`] at once.
    async fn retire(&self, node: NodeId) -> Result<(), StoreError>;

    /// Closes the connections, after those in use are given back.
    async fn close(&self);
}

/// A store, whichever database it stands on.
pub type SharedStore = Arc<dyn Store>;
