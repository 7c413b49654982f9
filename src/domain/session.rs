//! A session is a conversation, never a transport session.

use super::{AgentId, MessageId, SessionId, Timestamp, UserId};

/// Who may see a session besides its owner and members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Nobody.
    Private,
    /// Any authenticated user who has its id.
    Open,
}

/// What a user is in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// They made it, or were the first to join or send.
    Owner,
    /// They were added. Whoever looks at an open session without that is its guest.
    Member,
}

/// A stored session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub owner: UserId,
    /// What its frontend calls it.
    pub title: Option<String>,
    /// The agent that answers in it; the configured default where there is none.
    pub agent: Option<AgentId>,
    /// Who else may see it.
    pub visibility: Visibility,
    /// How many members it has, the owner among them.
    pub member_count: u32,
    /// The ordinal of its last message, deleted or not; 0 where there was none yet.
    pub last_ordinal: u64,
    /// When its last message was stored.
    pub last_message_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its own fields last changed.
    pub updated_at: Timestamp,
}

/// A session, and what the asking user is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The session.
    pub session: Session,
    /// `None` where the user is neither its owner nor a member.
    pub membership: Option<Membership>,
}

/// Somebody who belongs to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What they are in it.
    pub membership: Membership,
    /// Since when.
    pub joined_at: Timestamp,
    /// How far they have read.
    pub last_seen: Option<MessageId>,
}

/// What to change about a session; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionChange {
    /// A title, or none.
    pub title: Option<Option<String>>,
    /// The agent that answers in it, or the default.
    pub agent: Option<Option<AgentId>>,
    /// Who else may see it.
    pub visibility: Option<Visibility>,
}
