//! What a reader may hear, and where it stands in a session's log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AgentId, Error, EventId, GenerationId, Message, MessageId, ReactionCounts, StopReason,
    Timestamp, Usage, UserId,
};

/// How long somebody is typing who does not say so again.
pub const TYPING_TTL: Duration = Duration::from_secs(5);

/// A place in a session's log. Positions of one epoch are dense, from 1; a new epoch begins when
/// the log was lost, and is always higher. The default, `0-0`, is before everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which life of the log.
    pub epoch: u64,
    /// The place in it.
    pub seq: u64,
}

impl Position {
    /// Whether `self` directly follows `previous` in the same epoch. Nothing follows the last.
    pub fn follows(self, previous: Self) -> bool {
        self.epoch == previous.epoch && previous.seq.checked_add(1) == Some(self.seq)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// Something that happened in a session, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Recognises the same event should it be appended twice.
    pub id: EventId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// A new event, now.
    pub fn new(kind: EventKind) -> Self {
        Self { id: EventId::new(), at: Timestamp::now(), kind }
    }
}

/// What happened. Start, reset and the ends of a generation are barriers for its text: a reader
/// is shown them only between the text before and the text after.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A message was stored. Not used for an agent's answer, which `GenerationCompleted` brings.
    MessageNew(Arc<Message>),
    /// A message's text or attachments were changed; it stands as it is now.
    MessageEdited(Arc<Message>),
    /// A message was deleted; it keeps its place without its content.
    MessageDeleted {
        /// Which.
        message: MessageId,
        /// By whom.
        by: UserId,
        /// When.
        at: Timestamp,
    },
    /// Somebody has read up to a message.
    MessageSeen {
        /// Which.
        message: MessageId,
        /// Who.
        user: UserId,
        /// When.
        at: Timestamp,
    },
    /// Somebody gave a message an emoji, or took it back.
    ReactionChanged {
        /// Which.
        message: MessageId,
        /// Who.
        user: UserId,
        /// What.
        emoji: String,
        /// Whether it was given.
        added: bool,
        /// What the message has now.
        counts: ReactionCounts,
    },
    /// These may not see the session any more: their readers leave it at once, on every node.
    /// Shown to nobody else.
    AccessRevoked(Revoked),
    /// Something that this build does not know, since a newer one wrote it. It holds its place in
    /// the log and is shown to nobody.
    Unknown,
    /// A generation's first attempt begins, at offset 0.
    GenerationStarted {
        /// Which.
        generation: GenerationId,
        /// The answer's id.
        message: MessageId,
        /// Who answers.
        agent: AgentId,
        /// The attempt.
        attempt: u32,
    },
    /// Another attempt goes on from `offset`; the text before it stands.
    GenerationResumed {
        /// Which.
        generation: GenerationId,
        /// The answer's id.
        message: MessageId,
        /// Who answers.
        agent: AgentId,
        /// The attempt.
        attempt: u32,
        /// From where, in bytes.
        offset: u64,
        /// From where, in UTF-16 code units.
        utf16_offset: u64,
    },
    /// Another attempt starts over: the text so far is void.
    GenerationReset {
        /// Which.
        generation: GenerationId,
        /// The answer's id.
        message: MessageId,
        /// Who answers.
        agent: AgentId,
        /// The attempt.
        attempt: u32,
        /// Why, for a person.
        reason: String,
    },
    /// A stage of a pipeline began or is over.
    StageChanged {
        /// Which.
        generation: GenerationId,
        /// Where the pipeline stands.
        stage: Stage,
    },
    /// The model did something that is not of the text.
    Aside {
        /// Which.
        generation: GenerationId,
        /// The answer's id.
        message: MessageId,
        /// What.
        aside: Aside,
    },
    /// The provider is done and the text is `length` bytes long. Not shown: whoever finds it
    /// only has to finish.
    GenerationEnded {
        /// Which.
        generation: GenerationId,
        /// The attempt.
        attempt: u32,
        /// Of the whole text, in bytes.
        length: u64,
        /// Why the provider ended.
        reason: StopReason,
        /// What it cost.
        usage: Usage,
    },
    /// The answer is stored.
    GenerationCompleted {
        /// Which.
        generation: GenerationId,
        /// The answer.
        message: Arc<Message>,
        /// Why the provider ended.
        reason: StopReason,
        /// What it cost.
        usage: Usage,
    },
    /// Somebody stopped it; what there was of the answer is stored.
    GenerationStopped {
        /// Which.
        generation: GenerationId,
        /// What there was of the answer.
        message: Arc<Message>,
        /// Who.
        by: UserId,
    },
    /// It broke off; what there was of the answer is stored.
    GenerationFailed {
        /// Which.
        generation: GenerationId,
        /// What there was of the answer.
        message: Arc<Message>,
        /// Why.
        error: Error,
    },
}

impl EventKind {
    /// The generation that it is about.
    pub fn generation(&self) -> Option<GenerationId> {
        match self {
            Self::MessageNew(_)
            | Self::MessageEdited(_)
            | Self::MessageDeleted { .. }
            | Self::MessageSeen { .. }
            | Self::ReactionChanged { .. }
            | Self::AccessRevoked(_)
            | Self::Unknown => None,
            Self::GenerationStarted { generation, .. }
            | Self::GenerationResumed { generation, .. }
            | Self::GenerationReset { generation, .. }
            | Self::StageChanged { generation, .. }
            | Self::Aside { generation, .. }
            | Self::GenerationEnded { generation, .. }
            | Self::GenerationCompleted { generation, .. }
            | Self::GenerationStopped { generation, .. }
            | Self::GenerationFailed { generation, .. } => Some(*generation),
        }
    }

    /// The message that it brings, whole or bit by bit: the new one, or the answer. Whoever was
    /// given that message from the store does not need the event.
    pub fn brings(&self) -> Option<MessageId> {
        match self {
            Self::MessageNew(message)
            | Self::GenerationCompleted { message, .. }
            | Self::GenerationStopped { message, .. }
            | Self::GenerationFailed { message, .. } => Some(message.id),
            Self::GenerationStarted { message, .. }
            | Self::GenerationResumed { message, .. }
            | Self::GenerationReset { message, .. } => Some(*message),
            Self::GenerationEnded { .. }
            | Self::StageChanged { .. }
            | Self::Aside { .. }
            | Self::MessageEdited(_)
            | Self::MessageDeleted { .. }
            | Self::MessageSeen { .. }
            | Self::ReactionChanged { .. }
            | Self::AccessRevoked(_)
            | Self::Unknown => None,
        }
    }

    /// The stored answer, where the event ends a generation.
    pub fn answer(&self) -> Option<&Arc<Message>> {
        match self {
            Self::GenerationCompleted { message, .. }
            | Self::GenerationStopped { message, .. }
            | Self::GenerationFailed { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// Where a pipeline stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The stage's name.
    pub name: String,
    /// Who speaks in it.
    pub agents: Vec<AgentId>,
    /// Which it is, from 0.
    pub index: u32,
    /// How many there are.
    pub total: u32,
    /// What its agents said, in their order, once it is over; `None` while it runs. Not shown:
    /// whoever takes the pipeline over goes on after it. Empty where it was too long to be kept.
    pub said: Option<Vec<String>>,
}

/// What a model does beside its text. Each text is joined from many deltas and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    /// It thinks.
    Thinking {
        /// What is new of it.
        text: String,
    },
    /// It asks for a tool. Nothing here runs tools; frontends may show it.
    Tool {
        /// The provider's id of the call.
        id: String,
        /// The tool.
        name: String,
        /// Its input, as the provider wrote it: JSON as a rule.
        input: String,
    },
    /// It names a source of what it said.
    Citation {
        /// What people see: a title, or the words that are cited. May be empty.
        title: String,
        /// Where it is, if the provider says so.
        url: Option<String>,
    },
}

/// Who may not see a session any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// A user, who is no member any more.
    User(UserId),
    /// Everybody who is neither its owner nor a member: it is not open any more.
    Guests,
    /// Everybody: it was deleted.
    Everyone,
}

/// Something passing: it has no position, is not kept, and whoever is away misses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A user's first device came.
    UserJoined {
        /// Who.
        user: UserId,
        /// What they are called.
        name: Option<String>,
        /// How many users are there now.
        online: u64,
    },
    /// A user's last device went.
    UserLeft {
        /// Who.
        user: UserId,
        /// What they are called.
        name: Option<String>,
        /// How many users are there now.
        online: u64,
    },
    /// A user began to type, or still does: it ends by itself after
    /// [`TYPING_TTL`].
    TypingStarted {
        /// Who.
        user: UserId,
        /// What they are called.
        name: Option<String>,
    },
    /// A user types no longer.
    TypingStopped {
        /// Who.
        user: UserId,
        /// What they are called.
        name: Option<String>,
    },
}

impl Signal {
    /// The user it is about; their own devices are not told.
    pub fn user(&self) -> &UserId {
        match self {
            Self::UserJoined { user, .. }
            | Self::UserLeft { user, .. }
            | Self::TypingStarted { user, .. }
            | Self::TypingStopped { user, .. } => user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_of_the_same_epoch_follows() {
        let at = |epoch, seq| Position { epoch, seq };
        assert!(at(1, 2).follows(at(1, 1)));
        for other in [at(1, 1), at(1, 3), at(2, 2), at(1, 0)] {
            assert!(!other.follows(at(1, 1)), "{other}");
        }
        // What another node says is not always what a log can hold.
        assert!(!at(1, 0).follows(at(1, u64::MAX)));
    }
}
