//! Who somebody is: finding the token of a handshake or request, verifying it, and making tokens.
//!
//! A token is a JWT under the HMAC key of the cluster, a public key of its issuer, or one of those
//! that the issuer publishes; each key is for its own algorithms. Those made here for opening SSE
//! streams have a key of their own, so that they are good for nothing else. What is refused is
//! refused in few words, [`Refused`]: which check failed is nobody's business. It knows no
//! transport beyond a request's head, and no session: what a user may do there is `chat`'s.

mod head;
mod issuer;
mod jwks;
mod keys;
mod payload;
mod token;
mod verifier;

#[cfg(test)]
mod claims;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod published;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod signers;

use std::time::Duration;

use crate::domain::{Error, ErrorCode, SessionId, Timestamp, UserId};

pub use issuer::StartError;
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

    /// How long the token still holds, `leeway` after its end included; zero where it does not.
    pub fn holds_for(&self, leeway: Duration) -> Duration {
        // It is verified by whole seconds: who is sent away must not be let in with it again.
        let leeway = leeway.saturating_add(Duration::from_secs(1));
        let leeway = i64::try_from(leeway.as_millis()).unwrap_or(i64::MAX);
        let end = self.expires_at.as_millis().saturating_add(leeway);
        Timestamp::from_millis(end).since(Timestamp::now())
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
    /// Whether it is right nobody can say now: the issuer's keys could not be fetched. No word on
    /// the token, so that nobody throws it away.
    #[error("Tokens cannot be verified now")]
    Unavailable,
}

/// When to come back whose token cannot be verified.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl Refused {
    /// One word, for `err.data.reason` and for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unavailable => {
                Self::new(ErrorCode::Overloaded, refused.to_string()).retry_after(RETRY_AFTER)
            }
            _ => Self::new(ErrorCode::Auth, refused.to_string()),
        }
    }
}
