//! What nodes share: the sessions' logs and texts, who is present, and a word to another node.
//!
//! Split by concern ([`Log`], [`Presence`], [`Registry`]), one implementation in memory (one
//! process) and one on Redis (a cluster), one contract suite on both
//! (`tests/it/adapter_contract.rs`). It must not know readers, dialects or the database: what
//! arrives goes to the [`Feed`], whoever that is.

mod memory;
mod redis;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::domain::{Chunk, Event, GenerationId, NodeId, Position, SessionId, Signal, UserId};

pub use memory::{Memory, SharedMemory};
pub use redis::{Redis, RedisOptions};

/// The most users that [`Online`] lists.
pub const ONLINE_LISTED_MAX: usize = 200;

/// The adapter did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Redis cannot be reached or took too long. The command may have been carried out all the
    /// same; every append may be repeated.
    #[error("{doing}: Redis is not available")]
    Unavailable {
        /// What was being done, as in "append chunk".
        doing: &'static str,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something is stored that this version does not understand.
    #[error("{doing}: not understood: {what}")]
    Malformed {
        /// What was being done.
        doing: &'static str,
        /// What it was.
        what: String,
    },
}

/// What became of an appended chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The text now reaches at least the chunk's end.
    Done {
        /// How many nodes with readers heard of it now; 0 also where it had been applied before.
        heard: u64,
    },
    /// The text is shorter than the chunk's offset, so nothing was appended: Redis lost it, or
    /// this attempt was replaced. The writer must confirm that the attempt is still its own, then
    /// append again from `len`.
    Short {
        /// Its length in bytes; 0 where there is none.
        len: u64,
    },
}

/// Part of a session's log.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In order, contiguous.
    pub events: Vec<(Position, Arc<Event>)>,
    /// Whether the events directly follow the position that was asked for. `false` where the log
    /// has begun a new epoch or dropped older events since.
    pub contiguous: bool,
    /// Whether there are more after them.
    pub has_more: bool,
}

/// How far a session's log and texts reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The last event; `0-0` where there is no log.
    pub position: Position,
    /// The lengths, in bytes, of the texts that were asked about, in that order; 0 where there is
    /// none.
    pub text_lens: Vec<u64>,
}

/// Sessions' append-only logs of events, the append-only texts of running answers beside them,
/// and hearing of both as they grow.
///
/// # Errors
/// Every method: [`AdapterError`], within the command timeout.
///
/// # Cancel safety
/// A dropped append may or may not have happened; appending again is harmless.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends a chunk's text at its offset and publishes it, in one step. What was applied
    /// before is recognised by its offset. On success the [`Feed`] has it too.
    ///
    /// Appends of one session that are first polled in order are carried out in order, without
    /// waiting for each other.
    async fn append_chunk(
        &self,
        session: &SessionId,
        chunk: Chunk,
    ) -> Result<Appended, AdapterError>;

    /// Shows a chunk to this node's own readers ahead of the log, where appends are late.
    fn show(&self, session: &SessionId, chunk: Chunk);

    /// Shows an event to this node's own readers ahead of the log, where it could not be appended.
    /// It is still to be appended, under the same id.
    fn show_event(&self, session: &SessionId, event: Arc<Event>);

    /// Appends an event and publishes it, in one step; on success the [`Feed`] has it too.
    /// Begins a new epoch where the log turns out to be shorter than this node knows it to be.
    /// Repeated, the event stands in the log twice, under one id.
    async fn append_event(
        &self,
        session: &SessionId,
        event: Arc<Event>,
    ) -> Result<Position, AdapterError>;

    /// Publishes a passing signal: at most once, to the nodes with readers.
    async fn signal(&self, session: &SessionId, signal: Signal) -> Result<(), AdapterError>;

    /// Begins to hear a session. Once it answers, everything appended later reaches the feed.
    async fn subscribe(&self, session: &SessionId) -> Result<(), AdapterError>;

    /// Ends hearing a session.
    async fn unsubscribe(&self, session: &SessionId) -> Result<(), AdapterError>;

    /// At most `limit` events after `after`. Where that position is of another epoch or older
    /// than the log: the log's first ones, and `contiguous` is false.
    async fn read(
        &self,
        session: &SessionId,
        after: Position,
        limit: u64,
    ) -> Result<Page, AdapterError>;

    /// An attempt's text from `from` (bytes) on; empty where it is not longer, or gone.
    async fn text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
        from: u64,
    ) -> Result<String, AdapterError>;

    /// How far the log and some texts reach.
    async fn head(
        &self,
        session: &SessionId,
        texts: &[(GenerationId, u32)],
    ) -> Result<Head, AdapterError>;
}

/// Who is in a session, across the nodes. A node that dies is forgotten within ten seconds.
///
/// # Errors
/// Every method: [`AdapterError`].
#[async_trait]
pub trait Presence: Send + Sync {
    /// This node has a device of `user` in the session. Repeating it changes nothing.
    async fn enter(&self, session: &SessionId, user: &UserId) -> Result<Arrival, AdapterError>;

    /// This node's last device of `user` has left the session.
    async fn leave(&self, session: &SessionId, user: &UserId) -> Result<Departure, AdapterError>;
}

/// Who is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Online {
    /// At most [`ONLINE_LISTED_MAX`], in no order.
    pub users: Vec<UserId>,
    /// All of them.
    pub count: u64,
}

/// A user's device came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Whether it is the user's first, on any node.
    pub first: bool,
    /// Who is there now.
    pub online: Online,
}

/// A user's device went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Whether it was the user's last, on any node.
    pub last: bool,
    /// How many users are there now.
    pub online: u64,
}

/// The nodes, and a word to one of them.
///
/// # Errors
/// Every method: [`AdapterError`].
#[async_trait]
pub trait Registry: Send + Sync {
    /// Tells a node something, at most once. `false` where it does not listen.
    async fn tell(&self, node: NodeId, notice: Notice) -> Result<bool, AdapterError>;

    /// Whether the shared store answers; what `redis_up` shows. Never waits.
    fn is_up(&self) -> bool;
}

/// What one node tells another. The database holds the same: a lost notice is late, not lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Somebody asked to stop a generation that you run.
    Stop {
        /// Which.
        generation: GenerationId,
        /// Who.
        by: UserId,
    },
}

/// Where what arrives goes: a node's readers. Called on the path of delivery: it must not block
/// and must not call back into the adapter before it returns.
pub trait Feed: Send + Sync {
    /// A text grew. May come twice, late, or after a gap.
    fn chunk(&self, session: &SessionId, chunk: Chunk);
    /// An event was appended. May come twice, late, or after a gap.
    fn event(&self, session: &SessionId, position: Position, event: Arc<Event>);
    /// A text grew here that the log does not have yet; it comes again.
    fn ahead(&self, session: &SessionId, chunk: Chunk);
    /// An event happened here that the log does not have yet; it comes again with its position.
    fn unlogged(&self, session: &SessionId, event: Arc<Event>);
    /// A signal came.
    fn signal(&self, session: &SessionId, signal: Signal);
    /// Anything may have been missed since: every tail must compare heads.
    fn dirty(&self);
}

/// All that nodes share, on one backend.
pub trait Adapter: Log + Presence + Registry {
    /// Says where what arrives goes: text and events to `feed`, held weakly, notices to `notices`
    /// (where it is full they are dropped). Called once, before anything is subscribed.
    fn attach(&self, feed: std::sync::Weak<dyn Feed>, notices: mpsc::Sender<Notice>);
}

/// An adapter, whichever backend it stands on.
pub type SharedAdapter = Arc<dyn Adapter>;
