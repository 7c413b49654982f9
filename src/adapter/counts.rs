//! What is counted across the nodes: of users, so that they stay within their limits, and of
//! running generations.

use std::time::Duration;

use async_trait::async_trait;

use super::AdapterError;
use crate::domain::{Budget, GenerationId, Rate, SessionId, UserId};

/// How often users have asked, across the nodes.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Counts one `action` of `user`. `Err` where it is one too many, with the time after which
    /// the same will be allowed; it is not counted then. Never fails: where the shared store does
    /// not answer within 250 ms, this node's own count decides.
    async fn count(&self, user: &UserId, action: &'static str, rate: Rate) -> Result<(), Duration>;

    /// Takes `tokens` out of what a user may spend; they are spent whatever this answers. `Err`
    /// where nothing is left, with the time after which something is again. `tokens` of 0 only
    /// asks. Never fails, as [`Limits::count`].
    async fn spend(&self, user: &UserId, tokens: u64, budget: Budget) -> Result<(), Duration>;
}

/// What is counted of a generation while it runs, and for as long after it as its log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tokens of the answer so far.
    pub tokens: u64,
    /// Milliseconds from the request to the first token; `None` before it.
    pub first_token_ms: Option<u64>,
    /// How often providers failed on the way.
    pub errors: u32,
    /// Bytes of the answer's events that were given to clients, on all nodes.
    pub sent_bytes: u64,
}

/// What is counted of running generations, readable on any node. Passing: a lost count is no
/// harm.
///
/// # Errors
/// Every method: [`AdapterError`].
#[async_trait]
pub trait Tallies: Send + Sync {
    /// Says how far a generation is; `sent_bytes` is left as it is. By its owner, from time to
    /// time.
    async fn tally(
        &self,
        session: &SessionId,
        generation: GenerationId,
        tally: Tally,
    ) -> Result<(), AdapterError>;

    /// Adds to what was sent. By nodes with readers, from time to time.
    async fn add_sent(
        &self,
        session: &SessionId,
        generation: GenerationId,
        bytes: u64,
    ) -> Result<(), AdapterError>;

    /// What was counted. `None` where nothing was, or it is forgotten.
    async fn tallied(
        &self,
        session: &SessionId,
        generation: GenerationId,
    ) -> Result<Option<Tally>, AdapterError>;
}
