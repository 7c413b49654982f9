//! The JSON shapes that dialects and REST share: `Session`, `Message`, `E` and what they are made
//! of. Their JSON Schemas are made of the types themselves.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::Refusal;
use crate::domain::{
    Attachment, Author, Error, ErrorCode, Member, Membership, Message, Presence, Reaction,
    ReactionCounts, Session, Usage, UserId, Visibility,
};

/// Who may see a session besides its owner and members: nobody, or whoever has its id.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Visibility", inline)]
pub enum VisibilityJson {
    /// Nobody.
    Private,
    /// Any authenticated user who has its id.
    Open,
}

impl From<Visibility> for VisibilityJson {
    fn from(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Private => Self::Private,
            Visibility::Open => Self::Open,
        }
    }
}

impl From<VisibilityJson> for Visibility {
    fn from(visibility: VisibilityJson) -> Self {
        match visibility {
            VisibilityJson::Private => Self::Private,
            VisibilityJson::Open => Self::Open,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum RoleJson {
    Owner,
    Member,
}

impl From<Membership> for RoleJson {
    fn from(membership: Membership) -> Self {
        match membership {
            Membership::Owner => Self::Owner,
            Membership::Member => Self::Member,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum AuthorJson {
    User,
    Assistant,
    System,
}

impl From<Author> for AuthorJson {
    fn from(author: Author) -> Self {
        match author {
            Author::User => Self::User,
            Author::Assistant => Self::Assistant,
            Author::System => Self::System,
        }
    }
}

/// `Session`, as the caller sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Session", description = "A conversation, as the caller sees it.")]
pub struct SessionJson<'a> {
    id: &'a str,
    owner_id: &'a str,
    title: Option<&'a str>,
    /// The agent that answers in it; the configured default where there is none.
    agent_id: Option<&'a str>,
    visibility: VisibilityJson,
    /// What the caller is in it; null for a guest of an open one.
    role: Option<RoleJson>,
    /// With its owner.
    member_count: u32,
    #[schemars(extend("format" = "date-time"))]
    last_message_at: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    #[schemars(extend("format" = "date-time"))]
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
            visibility: session.visibility.into(),
            role: membership.map(RoleJson::from),
            member_count: session.member_count,
            last_message_at: session.last_message_at.map(|at| at.to_string()),
            created_at: session.created_at.to_string(),
            updated_at: session.updated_at.to_string(),
        }
    }
}

/// `Message`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Message", description = "What is stored in a session.")]
pub struct MessageJson<'a> {
    #[schemars(extend("format" = "uuid"))]
    id: String,
    session_id: &'a str,
    /// The person who wrote it.
    user_id: Option<&'a str>,
    /// The agent that wrote it.
    agent_id: Option<&'a str>,
    role: AuthorJson,
    /// Empty where the message was deleted.
    content: &'a str,
    /// What is kept beside the text (`partial`, `error`, …).
    metadata: &'a serde_json::Map<String, serde_json::Value>,
    /// How many tokens an agent's text took.
    tokens: Option<u64>,
    /// The message it replies to.
    #[schemars(extend("format" = "uuid"))]
    parent_message_id: Option<String>,
    /// The sender's own id for it.
    client_message_id: Option<&'a str>,
    is_edited: bool,
    #[schemars(extend("format" = "date-time"))]
    edited_at: Option<String>,
    is_deleted: bool,
    #[schemars(extend("format" = "date-time"))]
    deleted_at: Option<String>,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    #[schemars(extend("format" = "date-time"))]
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
            role: message.author.into(),
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

/// `{ emoji, count, userIds }`: one emoji under a message.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Reaction", description = "One emoji under a message.")]
pub struct ReactionJson<'a> {
    emoji: &'a str,
    count: usize,
    /// Who gave it, in the order they did.
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

/// How often each emoji was given to a message: `{ [emoji]: n }`, in the order in which they first
/// were.
#[derive(Debug)]
pub struct CountsJson<'a>(pub &'a ReactionCounts);

impl Serialize for CountsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (emoji, count) in self.0 {
            map.serialize_entry(emoji, count)?;
        }
        map.end()
    }
}

impl JsonSchema for CountsJson<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReactionCounts".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, u64>::json_schema(generator)
    }
}

/// `Attachment`: a file named with a message, which is itself kept elsewhere.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Attachment", description = "A file named with a message.")]
pub struct AttachmentJson<'a> {
    #[schemars(extend("format" = "uuid"))]
    id: String,
    file_name: &'a str,
    file_url: &'a str,
    mime_type: &'a str,
    file_size: u64,
    metadata: &'a serde_json::Map<String, serde_json::Value>,
}

impl<'a> From<&'a Attachment> for AttachmentJson<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            id: attachment.id.to_string(),
            file_name: &attachment.file_name,
            file_url: &attachment.file_url,
            mime_type: &attachment.mime_type,
            file_size: attachment.file_size,
            metadata: &attachment.metadata,
        }
    }
}

/// `{ userId, role, joinedAt, lastSeenMessageId }`: somebody who belongs to a session.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Member", description = "Somebody who belongs to a session.")]
pub struct MemberJson<'a> {
    user_id: &'a str,
    role: RoleJson,
    #[schemars(extend("format" = "date-time"))]
    joined_at: String,
    /// How far they have read.
    #[schemars(extend("format" = "uuid"))]
    last_seen_message_id: Option<String>,
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        Self {
            user_id: member.user.as_str(),
            role: member.membership.into(),
            joined_at: member.joined_at.to_string(),
            last_seen_message_id: member.last_seen.map(|id| id.to_string()),
        }
    }
}

/// Whether a user is there.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum StatusJson {
    /// With at least one connection.
    Online,
    /// With none.
    Offline,
}

/// `{ userId, status, devices, lastSeenAt }`: whether a user is there.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Presence", description = "Whether a user is there, across the cluster.")]
pub struct PresenceJson<'a> {
    user_id: &'a str,
    status: StatusJson,
    /// How many connections they have.
    devices: u64,
    /// Now, where they are online; else when they were last, where that is still known.
    #[schemars(extend("format" = "date-time"))]
    last_seen_at: Option<String>,
}

impl<'a> From<&'a Presence> for PresenceJson<'a> {
    fn from(presence: &'a Presence) -> Self {
        Self {
            user_id: presence.user.as_str(),
            status: if presence.devices > 0 { StatusJson::Online } else { StatusJson::Offline },
            devices: presence.devices,
            last_seen_at: presence.last_seen_at.map(|at| at.to_string()),
        }
    }
}

/// `{ inputTokens, outputTokens }`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Usage", description = "Tokens, as the provider counted them.")]
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
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Error", description = "What went wrong.")]
pub struct ErrorJson<'a> {
    /// The same word as `code`.
    #[schemars(with = "CodeJson")]
    r#type: &'static str,
    /// Stable: what programs look at.
    #[schemars(with = "CodeJson")]
    code: &'static str,
    /// For a person; names the field of an `INVALID`.
    message: &'a str,
    /// What the client called what it asked for; only over sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    /// When to try again, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// What it is about: `sessionId`, `messageId`, `streamId` and the like.
    #[serde(flatten)]
    #[schemars(with = "NamedIds")]
    ids: BTreeMap<&'static str, &'a str>,
}

/// The ids that an error may name.
struct NamedIds;

impl JsonSchema for NamedIds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NamedIds".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let id = generator.subschema_for::<String>();
        let names = [
            "sessionId",
            "messageId",
            "streamId",
            "conversationId",
            "personaId",
            "attachmentId",
            "userId",
            "clientMessageId",
        ];
        let properties: BTreeMap<_, _> = names.into_iter().map(|name| (name, &id)).collect();
        schemars::json_schema!({ "type": "object", "properties": properties })
    }
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
                // Whoever comes back then must not be a moment too early.
                .map(|after| {
                    u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
                }),
            ids: BTreeMap::new(),
        }
    }

    /// The same, saying what it is about: `name` is as in `sessionId`.
    pub fn about(mut self, name: &'static str, id: &'a str) -> Self {
        self.ids.insert(name, id);
        self
    }
}

/// The words of [`ErrorCode`].
struct CodeJson;

impl JsonSchema for CodeJson {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "enum": ErrorCode::ALL.map(ErrorCode::as_str) })
    }
}

impl<'a> From<&Refusal<'a>> for ErrorJson<'a> {
    fn from(refusal: &Refusal<'a>) -> Self {
        Self { ids: refusal.ids.iter().collect(), ..Self::new(refusal.error, Some(refusal.event)) }
    }
}

/// `{ "ok": false, "error": E }`: a command failed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Failed", description = "It was refused, or failed.")]
pub struct FailedJson<'a> {
    #[schemars(extend("const" = false))]
    ok: bool,
    error: ErrorJson<'a>,
}

/// The acknowledgement of a command that failed, in every dialect.
pub fn failed(refusal: &Refusal<'_>) -> Box<serde_json::value::RawValue> {
    super::raw(&FailedJson { ok: false, error: refusal.into() })
}
