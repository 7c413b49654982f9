//! What is stored in a session.

use super::{AgentId, AttachmentId, MessageId, SessionId, Timestamp, Usage, UserId};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// A person.
    User,
    /// An agent.
    Assistant,
    /// The frontend or the operator.
    System,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The session it stands in.
    pub session: SessionId,
    /// Its place in the session: dense, from 1, given when it is stored. Paging and counting use
    /// it, since ids and times can commit out of order.
    pub ordinal: u64,
    /// The person who wrote it.
    pub user: Option<UserId>,
    /// The agent that wrote it.
    pub agent: Option<AgentId>,
    /// Who speaks.
    pub author: Author,
    /// The text. Empty where the message was deleted.
    pub content: String,
    /// What the frontend or the server keeps beside the text (`partial`, `error`, …).
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// How many tokens an agent's text took, where it is known.
    pub tokens: Option<u64>,
    /// What an agent's text cost, where it is known.
    pub usage: Option<Usage>,
    /// The message it replies to.
    pub parent: Option<MessageId>,
    /// The sender's own id for it, which makes a retry harmless. Unique per session and user.
    pub client_message_id: Option<String>,
    /// When its text was last changed by its author.
    pub edited_at: Option<Timestamp>,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
    /// Who reacted, by emoji.
    pub reactions: Vec<Reaction>,
    /// Files that were named with it.
    pub attachments: Vec<Attachment>,
}

/// One emoji under a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// Who gave it, in the order they did.
    pub users: Vec<UserId>,
}

/// A file named with a message. The file itself is kept elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// What it is called.
    pub file_name: String,
    /// Where it is.
    pub file_url: String,
    /// What it is.
    pub mime_type: String,
    /// Its size in bytes.
    pub file_size: u64,
    /// What the frontend keeps beside it.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A file to be named with a message.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAttachment {
    /// What it is called.
    pub file_name: String,
    /// Where it is.
    pub file_url: String,
    /// What it is.
    pub mime_type: String,
    /// Its size in bytes.
    pub file_size: u64,
    /// What the frontend keeps beside it.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// How often each emoji was given to a message, in the order in which they first were.
pub type ReactionCounts = Vec<(String, u64)>;
