//! The errors a client can see. Each has a stable code; whether a retry helps follows from it.

use std::fmt;
use std::time::Duration;

/// What went wrong, in the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not authenticated, or the token no longer holds.
    Auth,
    /// No such session, message, stream or agent, or not this user's to see: the two are
    /// indistinguishable.
    NotFound,
    /// Seen, but not this user's to change.
    Forbidden,
    /// The payload has the wrong shape, size or values; the message names the field.
    Invalid,
    /// Too many requests.
    RateLimit,
    /// The content was refused by moderation.
    ModerationFailed,
    /// The model gave no first token, or stalled.
    Timeout,
    /// Too many concurrent streams, or the model's provider says so.
    Overloaded,
    /// The model's provider failed.
    Provider,
    /// Anything else; logged with an id that the message carries.
    Internal,
}

impl ErrorCode {
    /// The code on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "AUTH_ERROR",
            Self::NotFound => "NOT_FOUND",
            Self::Forbidden => "FORBIDDEN",
            Self::Invalid => "INVALID",
            Self::RateLimit => "RATE_LIMIT",
            Self::ModerationFailed => "MODERATION_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::Overloaded => "OVERLOADED",
            Self::Provider => "PROVIDER_ERROR",
            Self::Internal => "INTERNAL_ERROR",
        }
    }

    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Auth,
        Self::NotFound,
        Self::Forbidden,
        Self::Invalid,
        Self::RateLimit,
        Self::ModerationFailed,
        Self::Timeout,
        Self::Overloaded,
        Self::Provider,
        Self::Internal,
    ];

    /// The code that reads `word` on the wire.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimit | Self::Timeout | Self::Overloaded | Self::Provider | Self::Internal
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error a client can see. Its message never holds a secret, an upstream's body or an
/// internal detail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
    /// When to try again, where that is known.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error with `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The payload has the wrong shape, size or values; `message` names the field.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// There is no such `what`, or it is not this user's to see.
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("No such {what}"))
    }

    /// The same error, saying when to try again.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}
