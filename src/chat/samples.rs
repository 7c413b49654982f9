//! What unit tests of this module are made of.

use super::Caller;
use crate::domain::{
    Access, Author, Membership, Message, MessageId, Session, SessionId, Timestamp, UserId,
    Visibility,
};

/// A message whose content has so many bytes.
pub(super) fn message(ordinal: u64, bytes: usize) -> Message {
    let at = Timestamp::from_millis(0);
    Message {
        id: MessageId::new(),
        session: SessionId::new("s").unwrap(),
        ordinal,
        user: None,
        agent: None,
        author: Author::User,
        content: "x".repeat(bytes),
        metadata: serde_json::Map::new(),
        tokens: None,
        usage: None,
        parent: None,
        client_message_id: None,
        edited_at: None,
        deleted_at: None,
        created_at: at,
        updated_at: at,
        reactions: Vec::new(),
        attachments: Vec::new(),
    }
}

/// A session of `bob`'s, as somebody sees it.
pub(super) fn access(membership: Option<Membership>, visibility: Visibility) -> Access {
    let at = Timestamp::from_millis(0);
    let session = Session {
        id: SessionId::new("s").unwrap(),
        owner: UserId::new("bob").unwrap(),
        title: None,
        agent: None,
        visibility,
        member_count: 2,
        last_ordinal: 0,
        last_message_at: None,
        created_at: at,
        updated_at: at,
    };
    Access { session, membership }
}

/// Somebody called `ada`.
pub(super) fn caller() -> Caller {
    Caller { user: UserId::new("ada").unwrap(), name: None }
}
