//! What is asked of a store and what it answers, beyond the domain's own nouns.

use crate::domain::{
    Access, AgentId, Attachment, Event, Generation, GenerationConfig, GenerationId, Member,
    Message, MessageId, NewAttachment, NodeId, Outcome, ReactionCounts, Role, Session, SessionId,
    Timestamp, Usage, UserId, Visibility,
};

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

/// What a node says of itself, every half second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which.
    pub node: NodeId,
    /// Where it is reached, for people who look into the database.
    pub address: String,
    /// What it does: `all`, `edge` or `generator`.
    pub role: Role,
    /// Whether Redis answers it.
    pub redis_up: bool,
    /// How many generations it runs.
    pub running: u32,
    /// The most that it takes.
    pub running_max: u32,
    /// Whether it takes none any more.
    pub draining: bool,
}

/// A prompt and the generation that answers it, to be stored together.
#[derive(Debug, Clone)]
pub struct NewGeneration {
    /// The session.
    pub session: SessionId,
    /// Who asks.
    pub user: UserId,
    /// The prompt's id.
    pub prompt_id: MessageId,
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
    /// Whether that node has begun when it is stored: it is `Streaming` then, and not `Pending`.
    pub begun: bool,
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
    /// When the first token came. A time that is stored already stays.
    pub first_token_at: Option<Timestamp>,
    /// How often providers failed on the way.
    pub errors: u32,
    /// The provider and the model that answered, where a fallback did.
    pub answered_by: Option<(String, String)>,
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
/// The most different emojis that one user may give a message.
pub const EMOJIS_OWN_MAX: u32 = 10;

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

/// What became of a [`NewSession`].
#[derive(Debug, Clone, PartialEq)]
pub struct CreatedSession {
    /// Whether it was made now.
    pub created: bool,
    /// The session that has the id; `None` where a deleted one has it.
    pub access: Option<Access>,
}

/// A generation that has ended, and its answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Which.
    pub generation: GenerationId,
    /// How it ended. A reason that is not stored is `EndTurn`.
    pub outcome: Outcome,
    /// What it cost.
    pub usage: Usage,
    /// The attempt that ended it.
    pub attempt: u32,
    /// The answer as it is stored now.
    pub message: Message,
}

/// A message of a session as it is stored now.
#[derive(Debug, Clone)]
pub enum Kept {
    /// Somebody wrote it.
    Said(Message),
    /// A generation has ended with it.
    Answer(Answered),
}

impl Kept {
    /// It, without how it came about.
    pub fn message(&self) -> &Message {
        match self {
            Self::Said(message) => message,
            Self::Answer(answered) => &answered.message,
        }
    }
}
