//! What a client may ask, decoded and with its shape checked, whoever's words it came in.

use super::{AgentId, GenerationConfig, GenerationId, MessageId, SessionId};

/// The most bytes a client's own message id may have.
pub const CLIENT_MESSAGE_ID_BYTES_MAX: usize = 128;

/// A client's request.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Hear a session from now on.
    Join(Join),
    /// Hear it no longer.
    Leave {
        /// Which.
        session: SessionId,
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
}
