//! What a client may ask, decoded and with its shape checked, whoever's words it came in.

use super::{AgentId, GenerationConfig, GenerationId, MessageId, NewAttachment, SessionId, UserId};

/// The most bytes a client's own message id may have.
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 128;

/// The most bytes an emoji may have: the longest of Unicode's sequences have 35.
pub const EMOJI_BYTES_MAX: usize = 64;

/// A client's request.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Say who one is, where the connection did not.
    Identify {
        /// Who.
        user: UserId,
    },
    /// Hear a session from now on.
    Join(Join),
    /// Hear one's own session with an agent, made by asking for it.
    JoinPersona {
        /// Which agent.
        agent: AgentId,
    },
    /// Hear it no longer.
    Leave {
        /// Which.
        session: SessionId,
    },
    /// Store a message.
    Send(SendMessage),
    /// Change the text of one's own message.
    Edit {
        /// Which.
        message: MessageId,
        /// The new text.
        content: String,
    },
    /// Delete a message.
    Delete {
        /// Which.
        message: MessageId,
    },
    /// Say that one has read up to a message.
    See {
        /// Where.
        session: SessionId,
        /// Up to which.
        message: MessageId,
    },
    /// Give a message an emoji, or take it back.
    React {
        /// Which.
        message: MessageId,
        /// What: 1 to [`EMOJI_BYTES_MAX`] bytes.
        emoji: String,
    },
    /// Say that one types, or no longer does.
    Type {
        /// Where.
        session: SessionId,
        /// What to be called; else the token's name.
        name: Option<String>,
        /// Whether one types.
        active: bool,
    },
    /// Store a prompt and have an agent answer it. Joins too.
    RequestStream(RequestStream),
    /// Stop a generation, wherever it runs.
    StopStream {
        /// Which.
        generation: GenerationId,
    },
}

/// Hear a session from now on, and what was missed of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Which.
    pub session: SessionId,
    /// The last message the client has: it is given those after it.
    pub last_message: Option<MessageId>,
    /// How much the client has of running answers, in UTF-16 units: it is given what follows.
    pub texts: Vec<(GenerationId, u64)>,
}

/// Store a message.
#[derive(Debug, Clone, PartialEq)]
pub struct SendMessage {
    /// Where.
    pub session: SessionId,
    /// The text: never without a character.
    pub content: String,
    /// The message it replies to.
    pub parent: Option<MessageId>,
    /// Files to be named with it.
    pub attachments: Vec<NewAttachment>,
    /// The client's own id for it, which makes a retry harmless.
    pub client_message_id: Option<String>,
}

/// Store a prompt and have an agent answer it.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestStream {
    /// Where.
    pub session: SessionId,
    /// What is asked: never without a character.
    pub prompt: String,
    /// Who answers; else the session's agent.
    pub agent: Option<AgentId>,
    /// What to change about the agent's settings.
    pub config: GenerationConfig,
    /// The client's own id for the prompt, which makes a retry harmless.
    pub client_message_id: Option<String>,
    /// How it was put.
    pub put: Put,
}

/// How a prompt was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// As a request to an agent.
    AsRequest,
    /// As a message, in a dialect whose messages are answered: it counts as one, too.
    AsMessage {
        /// Whether the reader that sends it is shown it: its frontend may show it by itself.
        echo: bool,
    },
}
