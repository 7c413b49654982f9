//! What readers are shown in this dialect, but for the text of answers.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::stream::{self, StreamJson};
use crate::dialect::wire::{ErrorJson, MessageJson};
use crate::dialect::{EventSpec, Frame};
use crate::domain::{Event, EventKind, PresenceChange, ReactionCounts, SessionId, Signal};

pub(super) const SHOWN: &[EventSpec] = &[
    EventSpec::new::<Value>("connection:success", ""),
    EventSpec::new::<Value>("error", ""),
    EventSpec::new::<Value>("message:deleted", ""),
    EventSpec::new::<Value>("message:delivered", ""),
    EventSpec::new::<Value>("message:edited", ""),
    EventSpec::new::<Value>("message:new", ""),
    EventSpec::new::<Value>("message:reaction:update", ""),
    EventSpec::new::<Value>("message:seen:update", ""),
    EventSpec::new::<Value>("messages:missed", ""),
    EventSpec::new::<Value>("presence:update", ""),
    EventSpec::new::<Value>("server:shutdown", ""),
    EventSpec::new::<Value>("server:timeout", ""),
    EventSpec::new::<Value>("stream:chunk", ""),
    EventSpec::new::<Value>("stream:complete", ""),
    EventSpec::new::<Value>("stream:error", ""),
    EventSpec::new::<Value>("stream:reset", ""),
    EventSpec::new::<Value>("stream:resumed", ""),
    EventSpec::new::<Value>("stream:start", ""),
    EventSpec::new::<Value>("stream:stopped", ""),
    EventSpec::new::<Value>("typing:start", ""),
    EventSpec::new::<Value>("typing:stop", ""),
    EventSpec::new::<Value>("user:joined", ""),
    EventSpec::new::<Value>("user:left", ""),
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeletedJson<'a> {
    session_id: &'a str,
    message_id: String,
    deleted_by: &'a str,
    deleted_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeenJson<'a> {
    session_id: &'a str,
    message_id: String,
    user_id: &'a str,
    seen_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReactionJson<'a> {
    session_id: &'a str,
    message_id: String,
    user_id: &'a str,
    emoji: &'a str,
    added: bool,
    #[serde(serialize_with = "by_emoji")]
    counts: &'a ReactionCounts,
}

fn by_emoji<S: Serializer>(counts: &ReactionCounts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(emoji, count)| (emoji, count)))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserJson<'a> {
    session_id: &'a str,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PresenceJson<'a> {
    user_id: &'a str,
    status: &'static str,
    last_seen_at: String,
}

pub(super) fn event(session: &SessionId, event: &Event, seq: u64) -> Vec<Frame> {
    match &event.kind {
        EventKind::MessageNew(message) => {
            vec![Frame::new("message:new", &MessageJson::from(&**message))]
        }
        EventKind::MessageEdited(message) => {
            vec![Frame::new("message:edited", &MessageJson::from(&**message))]
        }
        EventKind::MessageDeleted { message, by, at } => {
            let json = DeletedJson {
                session_id: session.as_str(),
                message_id: message.to_string(),
                deleted_by: by.as_str(),
                deleted_at: at.to_string(),
            };
            vec![Frame::new("message:deleted", &json)]
        }
        EventKind::MessageSeen { message, user, at } => {
            let json = SeenJson {
                session_id: session.as_str(),
                message_id: message.to_string(),
                user_id: user.as_str(),
                seen_at: at.to_string(),
            };
            vec![Frame::new("message:seen:update", &json)]
        }
        EventKind::ReactionChanged { message, user, emoji, added, counts } => {
            let json = ReactionJson {
                session_id: session.as_str(),
                message_id: message.to_string(),
                user_id: user.as_str(),
                emoji,
                added: *added,
                counts,
            };
            vec![Frame::new("message:reaction:update", &json)]
        }
        EventKind::GenerationEnded { .. } | EventKind::AccessRevoked(_) | EventKind::Unknown => {
            Vec::new()
        }
        EventKind::GenerationStarted { generation, message, agent, .. } => {
            let mut json = StreamJson::new(*generation, session, message);
            json.agent_id = Some(agent.as_str());
            vec![Frame::new("stream:start", &json)]
        }
        EventKind::GenerationResumed { generation, message, attempt, utf16_offset, .. } => {
            let mut json = StreamJson::new(*generation, session, message);
            json.attempt = Some(*attempt);
            json.offset = Some(*utf16_offset);
            vec![Frame::new("stream:resumed", &json)]
        }
        EventKind::GenerationReset { generation, message, attempt, reason, .. } => {
            let mut json = StreamJson::new(*generation, session, message);
            json.attempt = Some(*attempt);
            json.reason = Some(reason);
            vec![Frame::new("stream:reset", &json)]
        }
        EventKind::GenerationCompleted { generation, message, reason, usage } => {
            stream::completed(session, *generation, message, reason, *usage, seq)
        }
        EventKind::GenerationStopped { generation, message, by } => {
            let mut json = StreamJson::new(*generation, session, message.id);
            json.stopped_by = Some(by.as_str());
            json.content = Some(&message.content);
            vec![Frame::new("stream:stopped", &json)]
        }
        EventKind::GenerationFailed { generation, message, error } => {
            let mut json = StreamJson::new(*generation, session, message.id);
            json.error = Some(ErrorJson::new(error, Some("stream:request")));
            vec![Frame::new("stream:error", &json)]
        }
    }
}

pub(super) fn signal(session: &SessionId, signal: &Signal) -> Frame {
    let (event, user, name, online) = match signal {
        Signal::UserJoined { user, name, online } => ("user:joined", user, name, Some(*online)),
        Signal::UserLeft { user, name, online } => ("user:left", user, name, Some(*online)),
        Signal::TypingStarted { user, name } => ("typing:start", user, name, None),
        Signal::TypingStopped { user, name } => ("typing:stop", user, name, None),
    };
    Frame::new(
        event,
        &UserJson {
            session_id: session.as_str(),
            user_id: user.as_str(),
            user_name: name.as_deref(),
            online,
        },
    )
}

pub(super) fn presence(change: &PresenceChange) -> Frame {
    Frame::new(
        "presence:update",
        &PresenceJson {
            user_id: change.user.as_str(),
            status: if change.online { "online" } else { "offline" },
            last_seen_at: change.last_seen_at.to_string(),
        },
    )
}
