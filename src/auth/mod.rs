//! Who somebody is: finding the token of a handshake or request, verifying it, and making tokens.
//!
//! A token is a JWT under the one HMAC key of the cluster; those made here for opening SSE streams
//! have a key of their own, so that they are good for nothing else. What is refused is refused in three
//! words only, [`Refused`]: which check failed is nobody's business but the log's. It knows no
//! transport beyond a request's head, and no session: what a user may do there is `chat`'s.

mod token;
mod verifier;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod opening;

use crate::domain::{Error, ErrorCode, SessionId, Timestamp, UserId};

pub use token::find_token;
pub use verifier::{IssueError, NewToken, Opening, STREAM_TOKEN_TTL, TOKEN_BYTES_MAX, Verifier};

/// What a verified token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `sub`.
    pub user: UserId,
    /// `name`, else `username`.
    pub name: Option<String>,
    /// `email`.
    pub email: Option<String>,
    /// `type`.
    pub kind: TokenKind,
    /// `sessionId`: the only session that a stream token opens.
    pub session: Option<SessionId>,
    /// `scope`: words, separated by spaces; empty where there is none.
    pub scope: String,
    /// `exp`, without leeway; never later than the year 9999.
    pub expires_at: Timestamp,
}

impl Claims {
    /// Whether `scope` holds `word`.
    pub fn has_scope(&self, word: &str) -> bool {
        self.scope.split(' ').any(|held| held == word)
    }

    /// These claims, where a normal token is needed.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for a stream token.
    pub fn normal(self) -> Result<Self, Refused> {
        match self.kind {
            TokenKind::Normal => Ok(self),
            TokenKind::Sse => Err(Refused::Invalid),
        }
    }
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Everything of its user's.
    Normal,
    /// Opening SSE streams (`"type": "sse"`).
    Sse,
}

/// Why somebody is not let in, in the words that clients rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// There is no token.
    #[error("Authentication error: Token missing")]
    Missing,
    /// There is one, and it is not right.
    #[error("Authentication error: Invalid token")]
    Invalid,
    /// It was right once.
    #[error("Authentication error: Token expired")]
    Expired,
}

impl Refused {
    /// One word, for `err.data.reason` and for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::new(ErrorCode::Auth, refused.to_string())
    }
}
