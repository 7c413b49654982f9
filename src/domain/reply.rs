//! What a command is answered with, whoever's words that goes out in.

use std::sync::Arc;

use super::{
    AgentId, GenerationId, Membership, Message, MessageId, Session, SessionId, Timestamp, UserId,
};

/// A command's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To `Identify`.
    Identified {
        /// Who one is now.
        user: UserId,
    },
    /// To `Join`.
    Joined(Box<Joined>),
    /// To `JoinPersona`.
    JoinedPersona(Box<JoinedPersona>),
    /// To `Leave`.
    Left {
        /// Which.
        session: SessionId,
    },
    /// To `Send`.
    Sent {
        /// As it is stored.
        message: Arc<Message>,
        /// When it was handed to the session's readers.
        delivered_at: Timestamp,
        /// How many other users were there then.
        recipients: u64,
    },
    /// To `Edit`.
    Edited {
        /// As it is stored.
        message: Arc<Message>,
    },
    /// To `Delete`.
    Deleted,
    /// To `See`.
    Seen,
    /// To `React`.
    Reacted {
        /// Whether it was given rather than taken back.
        added: bool,
    },
    /// To `Type`.
    Typed,
    /// To `RequestStream`.
    Requested {
        /// The generation that answers.
        generation: GenerationId,
        /// The answer's id, known from now on.
        message: MessageId,
        /// The prompt's id.
        prompt: MessageId,
    },
    /// To `StopStream`: the stop is stored.
    StopStored,
}

/// What a reader that has joined is told first.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The session.
    pub session: Session,
    /// What the caller is in it; `None` for a guest of an open one.
    pub membership: Option<Membership>,
    /// Users that are there, cut off at 200.
    pub online: Vec<UserId>,
    /// How many are there.
    pub online_count: u64,
    /// Answers that are being written.
    pub active: Vec<ActiveGeneration>,
    /// What came after the message that the client named; `None` where it named none.
    pub missed: Option<Vec<Message>>,
    /// Whether there is more of that.
    pub has_more: bool,
}

/// What a reader that has joined its session with an agent is told first.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinedPersona {
    /// The session.
    pub session: SessionId,
    /// The agent.
    pub agent: AgentId,
    /// The last ten messages, oldest first.
    pub messages: Vec<Message>,
}

/// An answer that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveGeneration {
    /// Which.
    pub generation: GenerationId,
    /// The answer's id.
    pub message: MessageId,
    /// Who answers.
    pub agent: AgentId,
    /// How long the text is, in UTF-16 code units.
    pub utf16_len: u64,
}
