//! What readers are shown in this dialect, but for the text of answers.

use schemars::JsonSchema;
use serde::Serialize;

use super::answer::{DeliveredJson, MissedJson};
use super::beside::{self, AsideJson, StageJson};
use super::connection::{ConnectedJson, ShutdownJson, TimeoutJson};
use super::stream::{
    self, ChunkJson, CompletedJson, FailedJson, ResetJson, ResumedJson, StartedJson, StoppedJson,
    StreamOf,
};
use crate::dialect::wire::{CountsJson, ErrorJson, MessageJson, StatusJson};
use crate::dialect::{EventSpec, Frame};
use crate::domain::{Event, EventKind, PresenceChange, SessionId, Signal, UserId};

pub(super) const SHOWN: &[EventSpec] = &[
    crate::dialect::offset::SPEC,
    EventSpec::new::<ConnectedJson<'static>>(
        "connection:success",
        "Once, on every connection whose handshake names no other dialect.",
    ),
    EventSpec::new::<ErrorJson<'static>>(
        "error",
        "An event without an acknowledgement was refused, or a session may not be seen any more.",
    ),
    EventSpec::new::<DeletedJson<'static>>(
        "message:deleted",
        "A message was deleted: it keeps its place without its content.",
    ),
    EventSpec::new::<DeliveredJson<'static>>(
        "message:delivered",
        "After the `message:new` of one's own `message:send`.",
    ),
    EventSpec::new::<MessageJson<'static>>("message:edited", "A message has another text."),
    EventSpec::new::<MessageJson<'static>>(
        "message:new",
        "A person's message, one's own too. Answers come in `stream:complete`.",
    ),
    EventSpec::new::<ReactionJson<'static>>(
        "message:reaction:update",
        "Somebody gave or took back a reaction.",
    ),
    EventSpec::new::<SeenJson<'static>>(
        "message:seen:update",
        "Somebody has read up to a message.",
    ),
    EventSpec::new::<MissedJson<'static>>(
        "messages:missed",
        "After a join with `lastMessageId`. Unasked, without messages and with `hasMore`: the \
         connection was away or slow for longer than the session's log reaches, and was shown what \
         was stored meanwhile; of older messages it may lack changes.",
    ),
    EventSpec::new::<StageJson<'static>>(
        "pipeline:stage",
        "A stage of a pipeline begins or is over. The last one's text is the answer's.",
    ),
    EventSpec::new::<PresenceJson<'static>>(
        "presence:update",
        "Somebody who shares a session with this user came or went.",
    ),
    EventSpec::new::<ShutdownJson>("server:shutdown", "The node is about to close the connection."),
    EventSpec::new::<TimeoutJson>(
        "server:timeout",
        "The connection is about to be closed for its age.",
    ),
    EventSpec::new::<ChunkJson<'static>>(
        "stream:chunk",
        "New text of an answer; the last one has all of it.",
    ),
    EventSpec::new::<CompletedJson<'static>>("stream:complete", "An answer is whole, and stored."),
    EventSpec::new::<FailedJson<'static>>(
        "stream:error",
        "An answer failed; what there was of it is kept.",
    ),
    EventSpec::new::<AsideJson<'static>>(
        "stream:event",
        "The model does something beside its text: it thinks, asks for a tool, or names a source.",
    ),
    EventSpec::new::<ResetJson<'static>>(
        "stream:reset",
        "Forget the answer's text so far: it starts again at offset 0.",
    ),
    EventSpec::new::<ResumedJson<'static>>(
        "stream:resumed",
        "Another node goes on with the answer; nothing is to be done.",
    ),
    EventSpec::new::<StartedJson<'static>>("stream:start", "An answer is being written."),
    EventSpec::new::<StoppedJson<'static>>(
        "stream:stopped",
        "Somebody stopped an answer; what there was of it is kept.",
    ),
    EventSpec::new::<TypingJson<'static>>("typing:start", "Somebody else is typing."),
    EventSpec::new::<TypingJson<'static>>("typing:stop", "They are not any more."),
    EventSpec::new::<PresentJson<'static>>(
        "user:joined",
        "A user came into the session, with the first of their devices.",
    ),
    EventSpec::new::<PresentJson<'static>>("user:left", "A user left it, with the last of them."),
];

/// A message was deleted.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessageDeleted")]
struct DeletedJson<'a> {
    session_id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    deleted_by: &'a str,
    #[schemars(extend("format" = "date-time"))]
    deleted_at: String,
}

/// Somebody has read up to a message.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessageSeen")]
struct SeenJson<'a> {
    session_id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    user_id: &'a str,
    #[schemars(extend("format" = "date-time"))]
    seen_at: String,
}

/// A reaction was given or taken back.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReactionChanged")]
struct ReactionJson<'a> {
    session_id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    user_id: &'a str,
    emoji: &'a str,
    /// Whether it was given.
    added: bool,
    /// How often each emoji is given now.
    counts: CountsJson<'a>,
}

/// Somebody came to a session, or left it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "UserPresent")]
struct PresentJson<'a> {
    session_id: &'a str,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    /// How many users are there now.
    online: u64,
}

/// Somebody types in a session, or has stopped.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "UserTyping")]
struct TypingJson<'a> {
    session_id: &'a str,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
}

/// A user is there, or is not, across the cluster.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "PresenceChanged")]
struct PresenceJson<'a> {
    user_id: &'a str,
    status: StatusJson,
    #[schemars(extend("format" = "date-time"))]
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
                counts: CountsJson(counts),
            };
            vec![Frame::new("message:reaction:update", &json)]
        }
        EventKind::StageChanged { generation, stage } => {
            vec![beside::stage(session, *generation, stage)]
        }
        EventKind::Aside { generation, message, aside } => {
            vec![beside::aside(StreamOf::new(session, *generation, *message), aside)]
        }
        EventKind::GenerationEnded { .. } | EventKind::AccessRevoked(_) | EventKind::Unknown => {
            Vec::new()
        }
        EventKind::GenerationStarted { generation, message, agent, .. } => {
            vec![stream::started(StreamOf::new(session, *generation, *message), agent)]
        }
        EventKind::GenerationResumed { generation, message, attempt, utf16_offset, .. } => {
            let of = StreamOf::new(session, *generation, *message);
            vec![stream::resumed(of, *attempt, *utf16_offset)]
        }
        EventKind::GenerationReset { generation, message, attempt, reason, .. } => {
            vec![stream::reset(StreamOf::new(session, *generation, *message), *attempt, reason)]
        }
        EventKind::GenerationCompleted { generation, message, reason, usage } => {
            let of = StreamOf::new(session, *generation, message.id);
            stream::completed(of, message, reason, *usage, seq)
        }
        EventKind::GenerationStopped { generation, message, by } => {
            let of = StreamOf::new(session, *generation, message.id);
            vec![stream::stopped(of, by, &message.content)]
        }
        EventKind::GenerationFailed { generation, message, error } => {
            vec![stream::failed(StreamOf::new(session, *generation, message.id), error)]
        }
    }
}

pub(super) fn signal(session: &SessionId, signal: &Signal) -> Frame {
    let present = |event, user: &UserId, name: &Option<String>, online| {
        let (session_id, user_id) = (session.as_str(), user.as_str());
        let user_name = name.as_deref();
        Frame::new(event, &PresentJson { session_id, user_id, user_name, online })
    };
    let typing = |event, user: &UserId, name: &Option<String>| {
        let (session_id, user_id) = (session.as_str(), user.as_str());
        Frame::new(event, &TypingJson { session_id, user_id, user_name: name.as_deref() })
    };
    match signal {
        Signal::UserJoined { user, name, online } => present("user:joined", user, name, *online),
        Signal::UserLeft { user, name, online } => present("user:left", user, name, *online),
        Signal::TypingStarted { user, name } => typing("typing:start", user, name),
        Signal::TypingStopped { user, name } => typing("typing:stop", user, name),
    }
}

pub(super) fn presence(change: &PresenceChange) -> Frame {
    Frame::new(
        "presence:update",
        &PresenceJson {
            user_id: change.user.as_str(),
            status: if change.online { StatusJson::Online } else { StatusJson::Offline },
            last_seen_at: change.last_seen_at.to_string(),
        },
    )
}
