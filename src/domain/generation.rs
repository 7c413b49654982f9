//! One run of a model. On the wire it is called a *stream*.

use super::{AgentId, Error, GenerationId, MessageId, NodeId, SessionId, Timestamp, UserId};

/// Where a generation stands. `Completed`, `Stopped` and `Failed` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Accepted and stored; no node has begun.
    Pending,
    /// An attempt runs.
    Streaming,
    /// The provider said it was done.
    Completed,
    /// Somebody stopped it.
    Stopped,
    /// It broke off; what there was of the text is kept.
    Failed,
}

impl Status {
    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Stopped | Self::Failed)
    }
}

/// What a request may change about its agent's settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// The most tokens to answer with.
    pub max_tokens: Option<u32>,
    /// Another model of the same provider.
    pub model: Option<String>,
}

/// Tokens, as the provider counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read by the model.
    pub input_tokens: u64,
    /// Written by the model.
    pub output_tokens: u64,
    /// Of those read, how many the provider had in its cache.
    pub cached_tokens: u64,
}

/// Why a provider ended its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The model was done.
    EndTurn,
    /// `max_tokens` was reached.
    MaxTokens,
    /// Something else, in the provider's own word.
    Other(String),
}

impl StopReason {
    /// The word that clients see.
    pub fn as_str(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::Other(word) => word,
        }
    }
}

/// How another node goes on with an answer after its node died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnTakeover {
    /// The partial answer is given back to the model.
    #[default]
    Continue,
    /// From the start; clients see a reset.
    Restart,
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The provider said it was done.
    Completed {
        /// Why.
        reason: StopReason,
    },
    /// Somebody stopped it.
    Stopped {
        /// Who.
        by: UserId,
    },
    /// It broke off.
    Failed {
        /// What clients are told.
        error: Error,
    },
}

impl Outcome {
    /// The status it leaves behind.
    pub const fn status(&self) -> Status {
        match self {
            Self::Completed { .. } => Status::Completed,
            Self::Stopped { .. } => Status::Stopped,
            Self::Failed { .. } => Status::Failed,
        }
    }
}

/// A stored generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// Its id.
    pub id: GenerationId,
    /// The session that hears it.
    pub session: SessionId,
    /// Who asked.
    pub user: UserId,
    /// The message that asked.
    pub prompt: MessageId,
    /// The answer's id, known from the start.
    pub message: MessageId,
    /// Who answers.
    pub agent: AgentId,
    /// The agent's provider, by its id in the agents file.
    pub provider: String,
    /// The model asked of it.
    pub model: String,
    /// Where it stands.
    pub status: Status,
    /// What the request changed.
    pub config: GenerationConfig,
    /// The node whose attempt it is.
    pub owner: NodeId,
    /// The running attempt, from 1. A takeover begins the next.
    pub attempt: u32,
    /// Who asked to stop it.
    pub stop_requested: Option<UserId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the running attempt began.
    pub started_at: Option<Timestamp>,
    /// When the first token came.
    pub first_token_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// How many tokens the answer took, once it has ended.
    pub tokens: Option<u64>,
    /// How often providers failed on the way, retries and fallbacks included; known at the end.
    pub errors: u32,
    /// How often the node that ran it died or lost it. A node that handed it over did neither.
    pub losses: u32,
}
