//! The text of answers, and what the events about them have in common.

use serde::Serialize;

use crate::dialect::wire::{ErrorJson, MessageJson, UsageJson};
use crate::dialect::{Frame, TextShown};
use crate::domain::text::utf16_len;
use crate::domain::{GenerationId, Message, SessionId, StopReason, Usage};

/// What the events about a generation have in common.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamJson<'a> {
    stream_id: String,
    session_id: &'a str,
    message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<MessageJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<UsageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorJson<'a>>,
}

impl<'a> StreamJson<'a> {
    pub(super) fn new(
        generation: GenerationId,
        session: &'a SessionId,
        message: impl ToString,
    ) -> Self {
        Self {
            stream_id: generation.to_string(),
            session_id: session.as_str(),
            message_id: message.to_string(),
            agent_id: None,
            attempt: None,
            offset: None,
            reason: None,
            stopped_by: None,
            content: None,
            message: None,
            usage: None,
            stop_reason: None,
            error: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChunkJson<'a> {
    id: &'a str,
    stream_id: &'a str,
    session_id: &'a str,
    message_id: &'a str,
    seq: u64,
    offset: u64,
    delta: &'a str,
    content: &'a str,
    tokens: u64,
    is_complete: bool,
}

/// New text. `cumulative`: with the whole text so far.
pub(super) fn chunk(session: &SessionId, text: TextShown<'_>, cumulative: bool) -> Frame {
    let generation = text.generation.to_string();
    Frame::new(
        "stream:chunk",
        &ChunkJson {
            id: &generation,
            stream_id: &generation,
            session_id: session.as_str(),
            message_id: &text.message.to_string(),
            seq: text.seq,
            offset: text.utf16_offset,
            delta: text.delta,
            content: if cumulative { text.so_far } else { "" },
            tokens: text.tokens,
            is_complete: false,
        },
    )
}

/// The last chunk, with the whole response in it, then the stored message.
pub(super) fn completed(
    session: &SessionId,
    generation: GenerationId,
    message: &Message,
    reason: &StopReason,
    usage: Usage,
    seq: u64,
) -> Vec<Frame> {
    let id = generation.to_string();
    let chunk = ChunkJson {
        id: &id,
        stream_id: &id,
        session_id: session.as_str(),
        message_id: &message.id.to_string(),
        seq,
        offset: utf16_len(&message.content),
        delta: "",
        content: &message.content,
        tokens: message.tokens.unwrap_or(0),
        is_complete: true,
    };
    let mut json = StreamJson::new(generation, session, message.id);
    json.message = Some(MessageJson::from(message));
    json.usage = Some(usage.into());
    json.stop_reason = Some(reason.as_str());
    vec![Frame::new("stream:chunk", &chunk), Frame::new("stream:complete", &json)]
}
