//! How things of the domain are shown over REST.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::answer::View;
use super::cursor;
use crate::chat::AgentInfo;
use crate::dialect::wire::{
    AttachmentJson, CountsJson, MemberJson, MessageJson, PresenceJson, ReactionJson, SessionJson,
};
use crate::domain::{
    Access, Attachment, GenerationId, Member, Message, Presence, Reaction, ReactionCounts, UserId,
};
use crate::store::{Found, History, SessionPage};

impl View for Access {
    type Json<'a> = SessionJson<'a>;

    fn json(&self) -> SessionJson<'_> {
        SessionJson::new(&self.session, self.membership)
    }
}

impl View for Message {
    type Json<'a> = MessageJson<'a>;

    fn json(&self) -> MessageJson<'_> {
        self.into()
    }
}

impl View for Arc<Message> {
    type Json<'a> = MessageJson<'a>;

    fn json(&self) -> MessageJson<'_> {
        (&**self).into()
    }
}

impl View for Member {
    type Json<'a> = MemberJson<'a>;

    fn json(&self) -> MemberJson<'_> {
        self.into()
    }
}

impl View for Attachment {
    type Json<'a> = AttachmentJson<'a>;

    fn json(&self) -> AttachmentJson<'_> {
        self.into()
    }
}

/// A page of the caller's sessions.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SessionPage")]
pub(super) struct SessionPageJson<'a> {
    /// Last active first.
    sessions: Vec<SessionJson<'a>>,
    /// What to give as `cursor` to go on; null where there are no more.
    next_cursor: Option<String>,
}

impl View for SessionPage {
    type Json<'a> = SessionPageJson<'a>;

    fn json(&self) -> SessionPageJson<'_> {
        SessionPageJson {
            sessions: self.sessions.iter().map(View::json).collect(),
            next_cursor: self.next.as_ref().map(cursor::write),
        }
    }
}

/// A page of a session's messages.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "History")]
pub(super) struct HistoryJson<'a> {
    /// In the order of the session, oldest first.
    messages: Vec<MessageJson<'a>>,
    /// How many there are in the session, or how many direct replies.
    total: u64,
    /// Whether there are more in the direction that the page was counted in.
    has_more: bool,
}

impl View for History {
    type Json<'a> = HistoryJson<'a>;

    fn json(&self) -> HistoryJson<'_> {
        HistoryJson {
            messages: self.messages.iter().map(View::json).collect(),
            total: self.total,
            has_more: self.has_more,
        }
    }
}

/// A page of what was looked for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Found")]
pub(super) struct FoundJson<'a> {
    messages: Vec<MessageJson<'a>>,
    /// How many there are; counted no further than 10,000.
    total: u64,
}

impl View for Found {
    type Json<'a> = FoundJson<'a>;

    fn json(&self) -> FoundJson<'_> {
        let messages = self.messages.iter().map(View::json).collect();
        FoundJson { messages, total: self.total }
    }
}

/// Who belongs to a session.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Members")]
pub(super) struct MembersJson<'a> {
    members: Vec<MemberJson<'a>>,
}

impl View for Vec<Member> {
    type Json<'a> = MembersJson<'a>;

    fn json(&self) -> MembersJson<'_> {
        MembersJson { members: self.iter().map(View::json).collect() }
    }
}

/// Who is there.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Presences")]
pub(super) struct PresencesJson<'a> {
    users: Vec<PresenceJson<'a>>,
}

impl View for Vec<Presence> {
    type Json<'a> = PresencesJson<'a>;

    fn json(&self) -> PresencesJson<'_> {
        PresencesJson { users: self.iter().map(PresenceJson::from).collect() }
    }
}

/// Who gave a message which emoji.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Reactions")]
pub(super) struct ReactionsJson<'a> {
    reactions: Vec<ReactionJson<'a>>,
}

impl View for Vec<Reaction> {
    type Json<'a> = ReactionsJson<'a>;

    fn json(&self) -> ReactionsJson<'_> {
        ReactionsJson { reactions: self.iter().map(ReactionJson::from).collect() }
    }
}

/// The files named with a message.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Attachments")]
pub(super) struct AttachmentsJson<'a> {
    attachments: Vec<AttachmentJson<'a>>,
}

impl View for Vec<Attachment> {
    type Json<'a> = AttachmentsJson<'a>;

    fn json(&self) -> AttachmentsJson<'_> {
        AttachmentsJson { attachments: self.iter().map(View::json).collect() }
    }
}

/// What became of an emoji that was given or taken back.
pub(super) struct Reacted {
    pub(super) added: bool,
    pub(super) counts: ReactionCounts,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Reacted")]
pub(super) struct ReactedJson<'a> {
    /// Whether it was given rather than taken back.
    added: bool,
    /// How often the message has each emoji now.
    counts: CountsJson<'a>,
}

impl View for Reacted {
    type Json<'a> = ReactedJson<'a>;

    fn json(&self) -> ReactedJson<'_> {
        ReactedJson { added: self.added, counts: CountsJson(&self.counts) }
    }
}

/// A user whose connections were closed.
pub(super) struct Disconnected {
    pub(super) user: UserId,
    pub(super) devices: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Disconnected")]
pub(super) struct DisconnectedJson<'a> {
    user_id: &'a str,
    /// How many connections they had.
    disconnected: u64,
}

impl View for Disconnected {
    type Json<'a> = DisconnectedJson<'a>;

    fn json(&self) -> DisconnectedJson<'_> {
        DisconnectedJson { user_id: self.user.as_str(), disconnected: self.devices }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Agent")]
struct AgentJson<'a> {
    /// What to give as `agentId`.
    id: &'a str,
    /// What people see.
    name: &'a str,
    /// Whether it answers where nobody is named.
    default: bool,
}

/// Who answers.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Agents")]
pub(super) struct AgentsJson<'a> {
    agents: Vec<AgentJson<'a>>,
}

impl View for Vec<AgentInfo> {
    type Json<'a> = AgentsJson<'a>;

    fn json(&self) -> AgentsJson<'_> {
        let agents = self.iter().map(|agent| AgentJson {
            id: agent.id.as_str(),
            name: &agent.name,
            default: agent.is_default,
        });
        AgentsJson { agents: agents.collect() }
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Stopping")]
pub(super) struct StoppingJson {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
}

impl View for GenerationId {
    type Json<'a> = StoppingJson;

    fn json(&self) -> StoppingJson {
        StoppingJson { stream_id: self.to_string() }
    }
}
