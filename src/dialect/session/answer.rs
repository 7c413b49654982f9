//! What commands are answered with in this dialect.

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::dialect::wire::{MessageJson, SessionJson};
use crate::dialect::{Answer, Frame, raw};
use crate::domain::{Joined, Message, Reply, Timestamp, UserId};

pub(super) fn answer(reply: &Reply) -> Answer {
    let only = |ack: serde_json::Value| Answer { ack: raw(&ack), frames: Vec::new() };
    match reply {
        Reply::Joined(it) => joined(it),
        Reply::Requested { generation, message, prompt } => only(json!({
            "ok": true,
            "streamId": generation.to_string(),
            "messageId": message.to_string(),
            "promptMessageId": prompt.to_string(),
        })),
        Reply::Sent { message, delivered_at, recipients } => {
            sent(message, *delivered_at, *recipients)
        }
        Reply::Edited { message } => Answer { ack: stored(message), frames: Vec::new() },
        Reply::Reacted { added } => only(json!({ "ok": true, "added": added })),
        // No event of this dialect asks for these.
        Reply::Identified { .. } | Reply::JoinedPersona(_) => only(json!({ "ok": true })),
        Reply::Left { .. } | Reply::StopStored | Reply::Deleted | Reply::Seen | Reply::Typed => {
            only(json!({ "ok": true }))
        }
    }
}

fn stored(message: &Message) -> Box<RawValue> {
    #[derive(Serialize)]
    struct StoredJson<'a> {
        ok: bool,
        message: MessageJson<'a>,
    }
    raw(&StoredJson { ok: true, message: message.into() })
}

fn sent(message: &Message, delivered_at: Timestamp, recipients: u64) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct DeliveredJson<'a> {
        session_id: &'a str,
        message_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_message_id: Option<&'a str>,
        delivered_at: String,
        recipients: u64,
    }
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
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ActiveJson<'a> {
        stream_id: String,
        message_id: String,
        agent_id: &'a str,
        offset: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct JoinedJson<'a> {
        ok: bool,
        session: SessionJson<'a>,
        online: Vec<&'a str>,
        online_count: u64,
        active_streams: Vec<ActiveJson<'a>>,
        missed: usize,
        has_more: bool,
    }
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

fn missed(joined: &Joined, messages: &[Message]) -> Frame {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct MissedJson<'a> {
        session_id: &'a str,
        messages: Vec<MessageJson<'a>>,
        has_more: bool,
    }
    Frame::new(
        "messages:missed",
        &MissedJson {
            session_id: joined.session.id.as_str(),
            messages: messages.iter().map(MessageJson::from).collect(),
            has_more: joined.has_more,
        },
    )
}
