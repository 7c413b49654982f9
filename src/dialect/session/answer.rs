//! What commands are answered with in this dialect.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::dialect::acks::DoneJson;
use crate::dialect::wire::{MessageJson, SessionJson};
use crate::dialect::{Answer, Frame, raw};
use crate::domain::{Joined, Message, Reply, SessionId, Timestamp, UserId};

/// The message, as it is stored now.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MessageStored")]
pub(super) struct StoredJson<'a> {
    #[schemars(extend("const" = true))]
    ok: bool,
    message: MessageJson<'a>,
}

/// The reaction was given or taken back.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReactionToggled")]
pub(super) struct ReactedJson {
    /// Whether it is there now.
    added: bool,
    #[schemars(extend("const" = true))]
    ok: bool,
}

/// An answer is being written.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamRequested")]
pub(super) struct RequestedJson {
    /// The answer's id, from now on.
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    #[schemars(extend("const" = true))]
    ok: bool,
    /// The stored prompt's id.
    #[schemars(extend("format" = "uuid"))]
    prompt_message_id: String,
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
}

/// The session was joined.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SessionJoined")]
pub(super) struct JoinedJson<'a> {
    #[schemars(extend("const" = true))]
    ok: bool,
    session: SessionJson<'a>,
    /// Who is there: the ids of at most 200 users.
    online: Vec<&'a str>,
    /// How many users are there.
    online_count: u64,
    /// The answers that are being written.
    active_streams: Vec<ActiveJson<'a>>,
    /// How many messages `messages:missed` brings.
    missed: usize,
    /// Whether there are more of them, or may be: REST has them.
    has_more: bool,
}

/// An answer that is being written.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ActiveStream")]
struct ActiveJson<'a> {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    agent_id: &'a str,
    /// How much of it there is, in UTF-16 code units.
    offset: u64,
}

/// A message of this user was stored and shown to the session.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessageDelivered")]
pub(super) struct DeliveredJson<'a> {
    session_id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<&'a str>,
    #[schemars(extend("format" = "date-time"))]
    delivered_at: String,
    /// How many other users are in the session.
    recipients: u64,
}

/// What came after the message that the join named; without messages where there may be more than
/// a connection was shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "MessagesMissed")]
pub(super) struct MissedJson<'a> {
    session_id: &'a str,
    messages: Vec<MessageJson<'a>>,
    /// Whether there are more of them: REST has them.
    has_more: bool,
}

pub(super) fn answer(reply: &Reply) -> Answer {
    match reply {
        Reply::Joined(it) => joined(it),
        Reply::Requested { generation, message, prompt } => only(&RequestedJson {
            ok: true,
            stream_id: generation.to_string(),
            message_id: message.to_string(),
            prompt_message_id: prompt.to_string(),
        }),
        Reply::Sent { message, delivered_at, recipients } => {
            sent(message, *delivered_at, *recipients)
        }
        Reply::Edited { message } => Answer { ack: stored(message), frames: Vec::new() },
        Reply::Reacted { added } => only(&ReactedJson { ok: true, added: *added }),
        // No event of this dialect asks for these.
        Reply::Identified { .. } | Reply::JoinedPersona(_) => only(&DoneJson::OK),
        Reply::Left { .. } | Reply::StopStored | Reply::Deleted | Reply::Seen | Reply::Typed => {
            only(&DoneJson::OK)
        }
    }
}

fn only<A: Serialize>(ack: &A) -> Answer {
    Answer { ack: raw(ack), frames: Vec::new() }
}

fn stored(message: &Message) -> Box<RawValue> {
    raw(&StoredJson { ok: true, message: message.into() })
}

fn sent(message: &Message, delivered_at: Timestamp, recipients: u64) -> Answer {
    let delivered = DeliveredJson {
        session_id: message.session.as_str(),
        message_id: message.id.to_string(),
        client_message_id: message.client_message_id.as_deref(),
        delivered_at: delivered_at.to_string(),
        recipients,
    };
    Answer { ack: stored(message), frames: vec![Frame::new("message:delivered", &delivered)] }
}

fn joined(joined: &Joined) -> Answer {
    let ack = JoinedJson {
        ok: true,
        session: SessionJson::new(&joined.session, joined.membership),
        online: joined.online.iter().map(UserId::as_str).collect(),
        online_count: joined.online_count,
        active_streams: joined
            .active
            .iter()
            .map(|active| ActiveJson {
                stream_id: active.generation.to_string(),
                message_id: active.message.to_string(),
                agent_id: active.agent.as_str(),
                offset: active.utf16_len,
            })
            .collect(),
        missed: joined.missed.as_ref().map_or(0, Vec::len),
        has_more: joined.has_more,
    };
    let frames = joined.missed.iter().map(|messages| missed(joined, messages)).collect();
    Answer { ack: raw(&ack), frames }
}

/// There may be more than the connection was shown.
pub(super) fn incomplete(session: &SessionId) -> Frame {
    let json = MissedJson { session_id: session.as_str(), messages: Vec::new(), has_more: true };
    Frame::new("messages:missed", &json)
}

fn missed(joined: &Joined, messages: &[Message]) -> Frame {
    Frame::new(
        "messages:missed",
        &MissedJson {
            session_id: joined.session.id.as_str(),
            messages: messages.iter().map(MessageJson::from).collect(),
            has_more: joined.has_more,
        },
    )
}
