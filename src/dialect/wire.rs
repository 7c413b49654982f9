//! The JSON shapes that dialects and REST share: `Session`, `Message`, `E`.

use serde::Serialize;

use super::{Ids, Refusal};
use crate::domain::{
    Attachment, Author, Error, Membership, Message, Reaction, Session, Usage, UserId, Visibility,
};

/// `Session`, as the caller sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionJson<'a> {
    id: &'a str,
    owner_id: &'a str,
    title: Option<&'a str>,
    agent_id: Option<&'a str>,
    visibility: &'static str,
    role: Option<&'static str>,
    member_count: u32,
    last_message_at: Option<String>,
    created_at: String,
    updated_at: String,
}

impl<'a> SessionJson<'a> {
    /// A session, seen by somebody who is this in it.
    pub fn new(session: &'a Session, membership: Option<Membership>) -> Self {
        Self {
            id: session.id.as_str(),
            owner_id: session.owner.as_str(),
            title: session.title.as_deref(),
            agent_id: session.agent.as_ref().map(|agent| agent.as_str()),
            visibility: match session.visibility {
                Visibility::Private => "private",
                Visibility::Open => "open",
            },
            role: membership.map(|membership| match membership {
                Membership::Owner => "owner",
                Membership::Member => "member",
            }),
            member_count: session.member_count,
            last_message_at: session.last_message_at.map(|at| at.to_string()),
            created_at: session.created_at.to_string(),
            updated_at: session.updated_at.to_string(),
        }
    }
}

/// `Message`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageJson<'a> {
    id: String,
    session_id: &'a str,
    user_id: Option<&'a str>,
    agent_id: Option<&'a str>,
    role: &'static str,
    content: &'a str,
    metadata: &'a serde_json::Map<String, serde_json::Value>,
    tokens: Option<u64>,
    parent_message_id: Option<String>,
    client_message_id: Option<&'a str>,
    is_edited: bool,
    edited_at: Option<String>,
    is_deleted: bool,
    deleted_at: Option<String>,
    created_at: String,
    updated_at: String,
    reactions: Vec<ReactionJson<'a>>,
    attachments: Vec<AttachmentJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageJson>,
}

impl<'a> From<&'a Message> for MessageJson<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            id: message.id.to_string(),
            session_id: message.session.as_str(),
            user_id: message.user.as_ref().map(UserId::as_str),
            agent_id: message.agent.as_ref().map(|agent| agent.as_str()),
            role: match message.author {
                Author::User => "user",
                Author::Assistant => "assistant",
                Author::System => "system",
            },
            content: &message.content,
            metadata: &message.metadata,
            tokens: message.tokens,
            parent_message_id: message.parent.map(|parent| parent.to_string()),
            client_message_id: message.client_message_id.as_deref(),
            is_edited: message.edited_at.is_some(),
            edited_at: message.edited_at.map(|at| at.to_string()),
            is_deleted: message.deleted_at.is_some(),
            deleted_at: message.deleted_at.map(|at| at.to_string()),
            created_at: message.created_at.to_string(),
            updated_at: message.updated_at.to_string(),
            reactions: message.reactions.iter().map(ReactionJson::from).collect(),
            attachments: message.attachments.iter().map(AttachmentJson::from).collect(),
            usage: message.usage.map(UsageJson::from),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReactionJson<'a> {
    emoji: &'a str,
    count: usize,
    user_ids: Vec<&'a str>,
}

impl<'a> From<&'a Reaction> for ReactionJson<'a> {
    fn from(reaction: &'a Reaction) -> Self {
        Self {
            emoji: &reaction.emoji,
            count: reaction.users.len(),
            user_ids: reaction.users.iter().map(UserId::as_str).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttachmentJson<'a> {
    file_name: &'a str,
    file_url: &'a str,
    mime_type: &'a str,
    file_size: u64,
    metadata: &'a serde_json::Map<String, serde_json::Value>,
}

impl<'a> From<&'a Attachment> for AttachmentJson<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            file_name: &attachment.file_name,
            file_url: &attachment.file_url,
            mime_type: &attachment.mime_type,
            file_size: attachment.file_size,
            metadata: &attachment.metadata,
        }
    }
}

/// `{ inputTokens, outputTokens }`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageJson {
    input_tokens: u64,
    output_tokens: u64,
}

impl From<Usage> for UsageJson {
    fn from(usage: Usage) -> Self {
        Self { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens }
    }
}

/// `E`: an error as every transport shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorJson<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(flatten)]
    ids: Option<&'a Ids>,
}

impl<'a> ErrorJson<'a> {
    /// An error, and what the client called what it asked for.
    pub fn new(error: &'a Error, event: Option<&'a str>) -> Self {
        Self {
            r#type: error.code.as_str(),
            code: error.code.as_str(),
            message: &error.message,
            event,
            retry_after_ms: error
                .retry_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            ids: None,
        }
    }
}

impl<'a> From<&Refusal<'a>> for ErrorJson<'a> {
    fn from(refusal: &Refusal<'a>) -> Self {
        Self { ids: Some(refusal.ids), ..Self::new(refusal.error, Some(refusal.event)) }
    }
}

/// `{ "ok": false, "error": E }`, the acknowledgement of a command that failed, in every dialect.
pub fn failed(refusal: &Refusal<'_>) -> Box<serde_json::value::RawValue> {
    #[derive(Serialize)]
    struct Failed<'a> {
        ok: bool,
        error: ErrorJson<'a>,
    }
    super::raw(&Failed { ok: false, error: refusal.into() })
}
