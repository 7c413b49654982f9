//! A stored message as the log writes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::CodecError;
use super::wire::Usage;
use crate::domain;
use crate::domain::Timestamp;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message<'a> {
    id: String,
    #[serde(borrow)]
    session: Cow<'a, str>,
    ordinal: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Cow<'a, str>>,
    author: Author,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    metadata: Cow<'a, Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reactions: Vec<Reaction<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attachment<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Author {
    User,
    Assistant,
    System,
}

#[derive(Serialize, Deserialize)]
struct Reaction<'a> {
    emoji: Cow<'a, str>,
    users: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment<'a> {
    id: String,
    file_name: Cow<'a, str>,
    file_url: Cow<'a, str>,
    mime_type: Cow<'a, str>,
    file_size: u64,
    #[serde(default, skip_serializing_if = "is_empty")]
    metadata: Cow<'a, Map<String, Value>>,
}

impl<'a> From<&'a domain::Message> for Message<'a> {
    fn from(message: &'a domain::Message) -> Self {
        Self {
            id: message.id.to_string(),
            session: message.session.as_str().into(),
            ordinal: message.ordinal,
            user: message.user.as_ref().map(|user| user.as_str().into()),
            agent: message.agent.as_ref().map(|agent| agent.as_str().into()),
            author: match message.author {
                domain::Author::User => Author::User,
                domain::Author::Assistant => Author::Assistant,
                domain::Author::System => Author::System,
            },
            content: message.content.as_str().into(),
            metadata: Cow::Borrowed(&message.metadata),
            tokens: message.tokens,
            usage: message.usage.map(Usage::from),
            parent: message.parent.map(|parent| parent.to_string()),
            client_message_id: message.client_message_id.as_deref().map(Cow::Borrowed),
            edited_at: message.edited_at.map(Timestamp::as_millis),
            deleted_at: message.deleted_at.map(Timestamp::as_millis),
            created_at: message.created_at.as_millis(),
            updated_at: message.updated_at.as_millis(),
            reactions: message.reactions.iter().map(Reaction::from).collect(),
            attachments: message.attachments.iter().map(Attachment::from).collect(),
        }
    }
}

impl TryFrom<Message<'_>> for domain::Message {
    type Error = CodecError;

    fn try_from(wire: Message<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            id: parsed("message.id", &wire.id)?,
            session: parsed("message.session", &wire.session)?,
            ordinal: wire.ordinal,
            user: wire.user.map(|user| parsed("message.user", &user)).transpose()?,
            agent: wire.agent.map(|agent| parsed("message.agent", &agent)).transpose()?,
            author: match wire.author {
                Author::User => domain::Author::User,
                Author::Assistant => domain::Author::Assistant,
                Author::System => domain::Author::System,
            },
            content: wire.content.into_owned(),
            metadata: wire.metadata.into_owned(),
            tokens: wire.tokens,
            usage: wire.usage.map(domain::Usage::from),
            parent: wire.parent.map(|parent| parsed("message.parent", &parent)).transpose()?,
            client_message_id: wire.client_message_id.map(Cow::into_owned),
            edited_at: wire.edited_at.map(Timestamp::from_millis),
            deleted_at: wire.deleted_at.map(Timestamp::from_millis),
            created_at: Timestamp::from_millis(wire.created_at),
            updated_at: Timestamp::from_millis(wire.updated_at),
            reactions: wire
                .reactions
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            attachments: wire
                .attachments
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> From<&'a domain::Reaction> for Reaction<'a> {
    fn from(reaction: &'a domain::Reaction) -> Self {
        Self {
            emoji: reaction.emoji.as_str().into(),
            users: reaction.users.iter().map(|user| user.as_str().into()).collect(),
        }
    }
}

impl TryFrom<Reaction<'_>> for domain::Reaction {
    type Error = CodecError;

    fn try_from(wire: Reaction<'_>) -> Result<Self, CodecError> {
        let users = wire.users.iter().map(|user| parsed("message.reactions.users", user));
        Ok(Self { users: users.collect::<Result<_, _>>()?, emoji: wire.emoji.into_owned() })
    }
}

impl<'a> From<&'a domain::Attachment> for Attachment<'a> {
    fn from(attachment: &'a domain::Attachment) -> Self {
        Self {
            id: attachment.id.to_string(),
            file_name: attachment.file_name.as_str().into(),
            file_url: attachment.file_url.as_str().into(),
            mime_type: attachment.mime_type.as_str().into(),
            file_size: attachment.file_size,
            metadata: Cow::Borrowed(&attachment.metadata),
        }
    }
}

impl TryFrom<Attachment<'_>> for domain::Attachment {
    type Error = CodecError;

    fn try_from(wire: Attachment<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            id: parsed("message.attachments.id", &wire.id)?,
            file_name: wire.file_name.into_owned(),
            file_url: wire.file_url.into_owned(),
            mime_type: wire.mime_type.into_owned(),
            file_size: wire.file_size,
            metadata: wire.metadata.into_owned(),
        })
    }
}

/// Reads an id; `field` is what the error names.
pub(super) fn parsed<T: std::str::FromStr>(
    field: &'static str,
    text: &str,
) -> Result<T, CodecError> {
    text.parse().map_err(|_| CodecError::Value(field))
}

fn is_empty(metadata: &Map<String, Value>) -> bool {
    metadata.is_empty()
}
