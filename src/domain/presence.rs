//! Whether users are there. A *device* is one connection: a socket or an SSE response.

use super::{Timestamp, UserId};

/// A user as others see them, across the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// How many devices they have connected; none: offline.
    pub devices: u64,
    /// Now, where they are online; else when they were last, where that is still known.
    pub last_seen_at: Option<Timestamp>,
}

/// A user's first device came, or their last one has been gone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// Who.
    pub user: UserId,
    /// Whether they are there now.
    pub online: bool,
    /// When they were last seen.
    pub last_seen_at: Timestamp,
}
