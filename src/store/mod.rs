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
//! `delete_outgoing` after each append. Sending costs at most 6 (4 without a client's id or a
//! parent, and attachments), and changing a message at most 7, however much it has.

mod connect;
mod postgres;
mod sqlite;
mod words;

pub use connect::{StoreOptions, connect, migrate};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    Access, AgentId, Attachment, AttachmentId, Event, EventId, Generation, GenerationConfig,
    GenerationId, Member, Message, MessageId, NewAttachment, NodeId, Outcome, ReactionCounts,
    Session, SessionChange, SessionId, Timestamp, Usage, UserId, Visibility,
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

/// A session to be made.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it will be.
    pub owner: UserId,
    /// What its frontend calls it.
    pub title: Option<String>,
    /// The agent that answers in it.
    pub agent: Option<AgentId>,
    /// Who else may see it.
    pub visibility: Visibility,
}

/// A prompt and the generation that answers it, to be stored together.
#[derive(Debug, Clone)]
pub struct NewGeneration {
    /// The session.
    pub session: SessionId,
    /// Who asks.
    pub user: UserId,
    /// The prompt's text.
    pub prompt: String,
    /// The client's own id for the prompt.
    pub client_message_id: Option<String>,
    /// Who answers.
    pub agent: AgentId,
    /// The agent's provider.
    pub provider: String,
    /// The model asked of it.
    pub model: String,
    /// What the request changed about the agent's settings.
    pub config: GenerationConfig,
    /// The node that will run the first attempt.
    pub owner: NodeId,
    /// The most generations this user may have unfinished, across all nodes, this one included.
    /// 0 is no limit.
    pub user_generations_max: u32,
}

/// What became of a [`NewGeneration`].
#[derive(Debug, Clone)]
pub enum Accepted {
    /// Stored now. `outgoing` is what the outbox holds of it.
    New {
        /// The generation, `Pending`, attempt 1.
        generation: Generation,
        /// The prompt.
        prompt: Message,
        /// To be appended to the log, in this order, then deleted from the outbox.
        outgoing: Vec<Outgoing>,
    },
    /// The same `client_message_id` was accepted before: nothing was stored.
    Known {
        /// The generation it started then.
        generation: Generation,
        /// The prompt as it is stored.
        prompt: Message,
    },
    /// The same `client_message_id` is a message of this user that started no generation:
    /// nothing was stored.
    NotAPrompt,
    /// The user has `user_generations_max` unfinished generations: nothing was stored.
    TooMany,
    /// There is no such session, or it was deleted: nothing was stored.
    NoSession,
}

/// An event that stands in the outbox (under its own id) until it is appended to the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Whose log it belongs to.
    pub session: SessionId,
    /// Its place among the stored events of that session: dense, from 1, in the order in which
    /// they happened.
    pub revision: u64,
    /// The event.
    pub event: Event,
}

/// The end of a generation, to be stored by the attempt that owns it.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which.
    pub generation: GenerationId,
    /// The node that says so; refused where it is not the owner.
    pub owner: NodeId,
    /// Its attempt; refused where it is not the running one.
    pub attempt: u32,
    /// The whole text, possibly empty.
    pub content: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost.
    pub usage: Usage,
    /// How many tokens the text took.
    pub tokens: u64,
    /// When the first token came.
    pub first_token_at: Option<Timestamp>,
    /// The stored message's metadata (`partial`, `error`, …).
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// What became of a [`Finish`].
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all are `Stored`, and none is kept")]
pub enum Finished {
    /// Stored now: the answer with its ordinal, and the event that ends the generation, which the
    /// outbox holds.
    Stored {
        /// The answer.
        message: Message,
        /// To be appended to the log, then deleted from the outbox.
        outgoing: Outgoing,
    },
    /// It had ended before: nothing was changed.
    AlreadyFinal,
    /// Another node or attempt owns it: nothing was changed.
    NotOwner,
}

/// What became of a request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRequested {
    /// Stored; the owner has to be told.
    Stored {
        /// The node that runs it.
        owner: NodeId,
    },
    /// It had ended before.
    AlreadyFinal,
    /// There is no such generation.
    Unknown,
}

/// A page of messages that a client missed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Missed {
    /// In the order of the session, oldest first.
    pub messages: Vec<Message>,
    /// Whether there are more: after these, or before them where they are the newest.
    pub has_more: bool,
    /// Whether they are the newest, because the message they were to follow is not known.
    pub newest: bool,
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The session.
    pub session: SessionId,
    /// Who writes it.
    pub user: UserId,
    /// The text.
    pub content: String,
    /// The message it replies to, of the same session.
    pub parent: Option<MessageId>,
    /// Files to be named with it.
    pub attachments: Vec<NewAttachment>,
    /// The client's own id for it.
    pub client_message_id: Option<String>,
}

/// What became of a [`NewMessage`].
#[derive(Debug, Clone)]
pub enum Sent {
    /// Stored now.
    New {
        /// As it is stored.
        message: Message,
        /// To be appended to the log, then deleted from the outbox.
        outgoing: Outgoing,
    },
    /// The same `client_message_id` was stored before: nothing was stored now.
    Known {
        /// As it is stored.
        message: Message,
    },
    /// There is no such session, or it was deleted: nothing was stored.
    NoSession,
    /// There is no such parent in this session, or it was deleted: nothing was stored.
    NoParent,
}

/// A message, and what the asking user is in its session.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundMessage {
    /// As it is stored.
    pub message: Message,
    /// Its session, and what the user is in it.
    pub access: Access,
}

/// A message that was changed.
#[derive(Debug, Clone)]
pub struct Changed {
    /// As it is stored now.
    pub message: Message,
    /// To be appended to the log, then deleted from the outbox.
    pub outgoing: Outgoing,
}

/// What became of an emoji that was given or taken back.
#[derive(Debug, Clone)]
pub enum Reacted {
    /// Stored now.
    Done {
        /// Whether it was given.
        added: bool,
        /// What the message has now.
        counts: ReactionCounts,
        /// To be appended to the log, then deleted from the outbox.
        outgoing: Outgoing,
    },
    /// There is no such message, or it was deleted.
    Gone,
    /// The message has `max` different emojis, and this would be one more.
    TooMany,
}

/// What became of a read position.
#[derive(Debug, Clone)]
pub enum Seen {
    /// It moved on. A guest of an open session has no row that keeps it, and is heard all the
    /// same.
    Moved {
        /// To be appended to the log, then deleted from the outbox.
        outgoing: Outgoing,
    },
    /// It was there already, or further: nothing was stored.
    Already,
    /// There is no such message in this session.
    NoMessage,
}

/// What became of attachments that were added to a message.
#[derive(Debug, Clone)]
pub enum Attached {
    /// Stored now.
    Done {
        /// Those that were added.
        attachments: Vec<Attachment>,
        /// The message with all of them, to be appended to the log.
        outgoing: Outgoing,
    },
    /// There is no such message, or it was deleted.
    Gone,
    /// It would have more than `max`.
    TooMany,
}

/// Which part of a session's messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Only the direct replies to this one.
    pub parent: Option<MessageId>,
    /// Only what came before this one.
    pub before: Option<MessageId>,
    /// Only what came after this one.
    pub after: Option<MessageId>,
    /// The most messages.
    pub limit: u32,
    /// How many to leave out: counted from the newest, or, with `after` alone, from the oldest.
    pub offset: u64,
}

/// A page of messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// In the order of the session, oldest first.
    pub messages: Vec<Message>,
    /// How many messages there are: in the session, or of direct replies, which are counted no
    /// further than [`FOUND_MAX`]; `before` and `after` are not minded.
    pub total: u64,
    /// Whether there are more in the direction that the page was counted in.
    pub has_more: bool,
}

/// A page of what was looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The page.
    pub messages: Vec<Message>,
    /// How many there are; counted no further than [`FOUND_MAX`].
    pub total: u64,
}

/// The most messages that a thread or a search counts.
pub const FOUND_MAX: u32 = 10_000;

/// Where a page of sessions ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCursor {
    /// When its last one was active.
    pub active_at: Timestamp,
    /// Which that is.
    pub session: SessionId,
}

/// A page of a user's sessions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionPage {
    /// Last active first.
    pub sessions: Vec<Access>,
    /// Where to go on; `None` where there are no more.
    pub next: Option<SessionCursor>,
}

/// What became of a user who was to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberAdded {
    /// They are now.
    New(Member),
    /// They were before.
    Already(Member),
    /// The session has `max` members.
    TooMany,
    /// There is no such session, or it was deleted.
    NoSession,
}

/// A session that was changed.
#[derive(Debug, Clone)]
pub struct SessionChanged {
    /// As it is stored now.
    pub session: Session,
    /// `AccessRevoked(Guests)`, where it is not open any more.
    pub outgoing: Option<Outgoing>,
}

/// Some rows of the outbox.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutboxPage {
    /// In the order they were stored; without those that this build cannot read.
    pub rows: Vec<Outgoing>,
    /// Where to go on; `None` where there are no more.
    pub next: Option<i64>,
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
    /// `ReactionChanged` into the outbox. At most `max` different emojis are kept.
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

    /// Marks a pending generation as streaming, if `owner` and `attempt` still own it. `false`
    /// where they do not, or it has ended, or a stop was requested.
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

    /// At most `limit` unfinished generations that are older than `dead_after` and whose owner has
    /// given no heartbeat for as long, by the database's clock, oldest first.
    async fn orphans(
        &self,
        dead_after: Duration,
        limit: u32,
    ) -> Result<Vec<Generation>, StoreError>;

    /// The newest `limit` messages up to and including `last`, oldest first, deleted ones left
    /// out: the context of an answer.
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

    /// Deletes outbox rows by their events' ids; those that are gone already are passed over.
    async fn delete_outgoing(&self, events: &[EventId]) -> Result<(), StoreError>;

    /// Notes that `node` is alive, by the database's clock, and whether Redis answers it.
    /// The first call makes its row.
    async fn heartbeat(
        &self,
        node: NodeId,
        address: &str,
        redis_up: bool,
    ) -> Result<(), StoreError>;

    /// Closes the connections, after those in use are given back.
    async fn close(&self);
}

/// What became of a [`NewSession`].
#[derive(Debug, Clone, PartialEq)]
pub struct CreatedSession {
    /// Whether it was made now.
    pub created: bool,
    /// The session that has the id; `None` where a deleted one has it.
    pub access: Option<Access>,
}

/// A store, whichever database it stands on.
pub type SharedStore = Arc<dyn Store>;
