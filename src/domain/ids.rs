//! Identifiers. Ids made here are UUID v7, so they sort by the time they were made; a session's
//! id may be the frontend's own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// An identifier had the wrong shape. The message says what a right one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidId {
    what: &'static str,
    rule: &'static str,
}

impl InvalidId {
    /// What a right one looks like, as in "1 to 256 bytes".
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

/// Defines a cheaply cloned string identifier with its validity rule.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `id` and takes it over.
            ///
            /// # Errors
            /// [`InvalidId`] where the rule above is broken.
            pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidId> {
                let id = id.as_ref();
                let valid: fn(&str) -> bool = $valid;
                if valid(id) {
                    Ok(Self(id.into()))
                } else {
                    Err(InvalidId { what: $what, rule: $rule })
                }
            }

            /// The id as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }
    };
}

text_id!(
    /// A conversation's id: 1 to 128 characters of `A-Z a-z 0-9 . _ : -`.
    SessionId,
    "sessionId",
    "1 to 128 characters of A-Z a-z 0-9 . _ : -",
    |id| (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
);

text_id!(
    /// A user's id: the `sub` of their token, 1 to 256 bytes without control characters.
    UserId,
    "userId",
    "1 to 256 bytes without control characters",
    |id| (1..=256).contains(&id.len()) && !id.chars().any(char::is_control)
);

text_id!(
    /// A configured agent's id: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    AgentId,
    "agentId",
    "1 to 64 characters of A-Z a-z 0-9 . _ -",
    |id| (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
);

/// Defines a UUID v7 identifier.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later than every one this process made before.
            #[expect(clippy::new_without_default, reason = "a default id would not be new")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(id).map(Self).map_err(|_| InvalidId { what: $what, rule: "a UUID" })
            }
        }
    };
}

uuid_id!(
    /// A stored message's id.
    MessageId,
    "messageId"
);
uuid_id!(
    /// An attachment's id.
    AttachmentId,
    "attachmentId"
);
uuid_id!(
    /// A generation's id; on the wire it is called `streamId`.
    GenerationId,
    "streamId"
);
uuid_id!(
    /// One process' id, new at every start.
    NodeId,
    "nodeId"
);
uuid_id!(
    /// An event's id: the same event appended twice is recognised by it.
    EventId,
    "eventId"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_takes_what_the_contract_allows_and_nothing_else() {
        for good in ["a", "room:1", "A-Z_0.9", &"x".repeat(128)] {
            assert!(SessionId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", "{a}", "a\n", &"x".repeat(129)] {
            assert!(SessionId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_id_is_bounded_and_has_no_control_characters() {
        assert!(UserId::new("ada@example.org").is_ok());
        assert!(UserId::new("x".repeat(256)).is_ok());
        assert!(UserId::new("x".repeat(257)).is_err());
        assert!(UserId::new("").is_err());
        assert!(UserId::new("a\0b").is_err());
    }

    #[test]
    fn made_ids_read_back_from_their_text() {
        let id = GenerationId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("nonsense".parse::<MessageId>().is_err());
    }
}
