//! What is kept for ever: sessions, messages, generations, and the outbox of what readers must
//! still hear of.
//!
//! One trait, two databases (PostgreSQL in a cluster, SQLite embedded), one contract suite run on
//! both (`tests/it/store_contract.rs`). It must not know who asks or who listens: authorisation is
//! `chat`'s, delivery the adapter's.
//!
//! The statements stand once, in `sql/`, and are compiled for each database by `postgres` and
//! `sqlite`, which hold what differs. A generation costs a bounded number of them: `accept` at
//! most 6 (4 without a limit and a client's id), `begin` 1, `finish` 4, and one
//! `delete_outgoing` after each append.

mod connect;
mod postgres;
mod sqlite;

pub use connect::{StoreOptions, connect, migrate};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    AgentId, Event, Generation, GenerationConfig, GenerationId, Membership, Message, MessageId,
    NodeId, Outcome, Session, SessionId, Timestamp, Usage, UserId, Visibility,
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

/// A session, and what the asking user is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The session.
    pub session: Session,
    /// `None` where the user is neither its owner nor a member.
    pub membership: Option<Membership>,
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
    /// The session, which must exist.
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
}

/// An event that stands in the outbox (under its own id) until it is appended to the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Whose log it belongs to.
    pub session: SessionId,
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

    /// At most `limit` outbox rows older than `age` by the database's clock, in the order they
    /// were stored.
    async fn outbox(&self, age: Duration, limit: u32) -> Result<Vec<Outgoing>, StoreError>;

    /// Deletes outbox rows by their events' ids; those that are gone already are passed over.
    async fn delete_outgoing(&self, events: &[crate::domain::EventId]) -> Result<(), StoreError>;

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
