//! What nodes share: the sessions' logs and texts, who is present, what is counted, and a word to
//! other nodes.
//!
//! Split by concern ([`Log`], [`Presence`], [`Limits`], [`Tallies`], [`Registry`]), one implementation in memory (one
//! process) and one on Redis (a cluster), one contract suite on both
//! (`tests/it/adapter_contract.rs`). It must not know readers, dialects or the database: what
//! arrives goes to the [`Feed`], whoever that is.

mod counts;
mod gcra;
mod memory;
mod redis;
mod spent;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::domain::{
    self, Chunk, Event, GenerationId, NodeId, Position, PresenceChange, SessionId, Signal, UserId,
};

pub use counts::{Limits, Tallies, Tally};
pub use memory::{Memory, SharedMemory};
#[doc(hidden)]
pub use redis::frame;
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
    /// Redis is there, and refuses this node or is refused by it: another configuration helps.
    #[error("connect to Redis: {what}")]
    Refused {
        /// What is refused, for people.
        what: &'static str,
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

/// Whether the stored events before one must be in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// They must: otherwise nothing is appended.
    Required,
    /// Whoever appends has seen to them.
    SeenTo,
}

/// What became of a stored event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAppended {
    /// It stands there.
    At(Position),
    /// Nothing was appended: the log has the stored events up to revision `last` only, or (0) it
    /// is not known which it has.
    Early {
        /// The highest revision that was appended.
        last: u64,
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

    /// Appends an event that the store has, as [`Log::append_event`] does, in the order of the
    /// revisions that the store gave: with [`Earlier::Required`] only where the log is known to
    /// have all those before it. So a session's stored events stand in the log in the order in
    /// which they happened, whichever nodes append them. Repeated, it may stand there twice.
    async fn append_stored(
        &self,
        session: &SessionId,
        revision: u64,
        event: Arc<Event>,
        earlier: Earlier,
    ) -> Result<StoredAppended, AdapterError>;

    /// The highest revision of the store's that a session's log is known to have; 0 where that is
    /// not known.
    async fn revision(&self, session: &SessionId) -> Result<u64, AdapterError>;

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

    /// Makes an older attempt's text that of `attempt`, in one step, and answers with it: the
    /// newest older one there is; empty where there is none at all. Where `attempt` has a text
    /// already, that one. From then on older attempts' appends are refused with
    /// [`Appended::Short`], also where they had no text yet or write it again from the start.
    async fn take_text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<String, AdapterError>;

    /// Deletes an attempt's text, which may then be written again from the start.
    async fn drop_text(
        &self,
        session: &SessionId,
        generation: GenerationId,
        attempt: u32,
    ) -> Result<(), AdapterError>;

    /// How far the log and some texts reach.
    async fn head(
        &self,
        session: &SessionId,
        texts: &[(GenerationId, u32)],
    ) -> Result<Head, AdapterError>;
}

/// Which users have a device connected, and who is in a session, across the nodes.
///
/// A node that dies is forgotten within ten seconds, and one that shuts down like it: another node
/// then takes its users out, and says so by [`Sinks::absences`], once for all nodes.
///
/// # Errors
/// Every method: [`AdapterError`]. What this node said holds all the same, and the others learn of
/// it once Redis answers: a device whose [`Presence::connect`] failed is there until it is
/// disconnected, and a [`Presence::leave`] or [`Presence::settle`] that failed is carried out
/// later, with what it would have answered told by [`Sinks::absences`].
///
/// # Cancel safety
/// None: a dropped call may have been made.
#[async_trait]
pub trait Presence: Send + Sync {
    /// A device of `user` has connected to this node, unless they have `max` on all nodes (0: no
    /// limit).
    async fn connect(&self, user: &UserId, max: u32) -> Result<Connected, AdapterError>;

    /// A device of `user` has disconnected from this node. They count as online until
    /// [`Presence::settle`].
    async fn disconnect(&self, user: &UserId) -> Result<(), AdapterError>;

    /// Some time after a disconnect: `true` where the user was online and has no device on any
    /// node. To one caller only.
    async fn settle(&self, user: &UserId) -> Result<bool, AdapterError>;

    /// Whether these users are there, in the order that was asked for.
    async fn presence(&self, users: &[UserId]) -> Result<Vec<domain::Presence>, AdapterError>;

    /// Who is in the session now.
    async fn online(&self, session: &SessionId) -> Result<Online, AdapterError>;

    /// Whether the user is in the session, or was within `window`.
    async fn was_in(
        &self,
        session: &SessionId,
        user: &UserId,
        window: Duration,
    ) -> Result<bool, AdapterError>;

    /// This node has a device of `user` in the session. Repeating it changes nothing.
    async fn enter(&self, session: &SessionId, user: &UserId) -> Result<Arrival, AdapterError>;

    /// This node's last device of `user` has left the session.
    async fn leave(&self, session: &SessionId, user: &UserId) -> Result<Departure, AdapterError>;
}

/// What became of a device that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connected {
    /// It counts. `first`: the user was offline.
    Yes {
        /// See above.
        first: bool,
    },
    /// The user has as many as they may have: nothing was changed.
    TooMany,
}

/// Somebody whose node is gone without having said so itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// They have no device in the session any more.
    Left {
        /// Which.
        session: SessionId,
        /// Who.
        user: UserId,
        /// How many users are there now.
        online: u64,
    },
    /// They have no device any more, and were online.
    Offline {
        /// Who.
        user: UserId,
    },
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

    /// Tells every node something, this one included, at most once.
    async fn tell_all(&self, news: News) -> Result<(), AdapterError>;

    /// How often the shared store was connected to anew. What was appended before may be lost.
    fn reconnects(&self) -> u64;

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
    /// Run a generation that was stored as yours.
    Run {
        /// Which.
        generation: GenerationId,
    },
}

/// What one node tells all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Close every connection of a user.
    Disconnect {
        /// Whose.
        user: UserId,
    },
    /// A client of a user has come back on a new connection: close its older ones.
    CameBack {
        /// Whose.
        user: UserId,
        /// The client, by what it shows when it comes back.
        client: String,
        /// The new connection: no other is called so.
        by: String,
    },
    /// A user came or went; those who watch one of the sessions hear of it.
    Presence {
        /// Who, and whether they are there.
        change: PresenceChange,
        /// The sessions they belong to.
        sessions: Vec<SessionId>,
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
    /// News came.
    fn news(&self, news: News);
    /// Anything may have been missed since: every tail must compare heads.
    fn dirty(&self);
}

/// All that nodes share, on one backend.
pub trait Adapter: Log + Presence + Limits + Tallies + Registry {
    /// Says where what arrives goes. Called once, before anything is subscribed.
    fn attach(&self, sinks: Sinks);
}

/// Where what arrives goes. Where a channel is full, what came is dropped.
#[derive(Clone)]
pub struct Sinks {
    /// Text, events, signals and news.
    pub feed: Weak<dyn Feed>,
    /// What other nodes tell this one.
    pub notices: mpsc::Sender<Notice>,
    /// Users whose nodes are gone.
    pub absences: mpsc::Sender<Absence>,
}

/// An adapter, whichever backend it stands on.
pub type SharedAdapter = Arc<dyn Adapter>;
