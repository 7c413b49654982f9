//! Answers: their text, and what becomes of them.

use schemars::JsonSchema;
use serde::Serialize;

use crate::dialect::wire::{ErrorJson, MessageJson, UsageJson};
use crate::dialect::{Frame, TextShown};
use crate::domain::text::utf16_len;
use crate::domain::{
    AgentId, Error, GenerationId, Message, MessageId, SessionId, StopReason, Usage, UserId,
};

/// Which answer an event is about.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamOf<'a> {
    #[schemars(extend("format" = "uuid"))]
    stream_id: String,
    session_id: &'a str,
    /// The answer's id.
    #[schemars(extend("format" = "uuid"))]
    message_id: String,
}

impl<'a> StreamOf<'a> {
    pub(super) fn new(
        session: &'a SessionId,
        generation: GenerationId,
        message: MessageId,
    ) -> Self {
        Self {
            stream_id: generation.to_string(),
            session_id: session.as_str(),
            message_id: message.to_string(),
        }
    }
}

/// An answer is being written.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamStarted")]
pub(super) struct StartedJson<'a> {
    #[serde(flatten)]
    of: StreamOf<'a>,
    agent_id: &'a str,
}

pub(super) fn started(of: StreamOf<'_>, agent: &AgentId) -> Frame {
    Frame::new("stream:start", &StartedJson { of, agent_id: agent.as_str() })
}

/// Another node goes on with an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamResumed")]
pub(super) struct ResumedJson<'a> {
    #[serde(flatten)]
    of: StreamOf<'a>,
    /// Which attempt this is; the first is 1.
    attempt: u32,
    /// Where it goes on, in UTF-16 code units.
    offset: u64,
}

pub(super) fn resumed(of: StreamOf<'_>, attempt: u32, offset: u64) -> Frame {
    Frame::new("stream:resumed", &ResumedJson { of, attempt, offset })
}

/// An answer starts again.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamReset")]
pub(super) struct ResetJson<'a> {
    #[serde(flatten)]
    of: StreamOf<'a>,
    /// Which attempt this is; the first is 1.
    attempt: u32,
    /// Why, for a person.
    reason: &'a str,
}

pub(super) fn reset(of: StreamOf<'_>, attempt: u32, reason: &str) -> Frame {
    Frame::new("stream:reset", &ResetJson { of, attempt, reason })
}

/// New text of an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamChunk")]
pub(super) struct ChunkJson<'a> {
    /// The same as `streamId`.
    #[schemars(extend("format" = "uuid"))]
    id: &'a str,
    #[schemars(extend("format" = "uuid"))]
    stream_id: &'a str,
    session_id: &'a str,
    /// The answer's id.
    #[schemars(extend("format" = "uuid"))]
    message_id: &'a str,
    /// Counts the chunks as they were made: it grows, and may jump where several were joined.
    seq: u64,
    /// Where `delta` starts in the answer, in UTF-16 code units.
    offset: u64,
    /// The new text.
    delta: &'a str,
    /// The whole answer where `isComplete`; else empty, or the text so far with
    /// `STREAM_CHUNK_CONTENT=cumulative`.
    content: &'a str,
    /// How many tokens there are so far.
    tokens: u64,
    /// Whether this is the last one.
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

/// An answer is whole.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamCompleted")]
pub(super) struct CompletedJson<'a> {
    #[serde(flatten)]
    of: StreamOf<'a>,
    message: MessageJson<'a>,
    usage: UsageJson,
    /// `end_turn`, `max_tokens`, or the provider's own word.
    stop_reason: &'a str,
}

/// The last chunk, with the whole response in it, then the stored message.
pub(super) fn completed(
    of: StreamOf<'_>,
    message: &Message,
    reason: &StopReason,
    usage: Usage,
    seq: u64,
) -> Vec<Frame> {
    let chunk = ChunkJson {
        id: &of.stream_id,
        stream_id: &of.stream_id,
        session_id: of.session_id,
        message_id: &of.message_id,
        seq,
        offset: utf16_len(&message.content),
        delta: "",
        content: &message.content,
        tokens: message.tokens.unwrap_or(0),
        is_complete: true,
    };
    let chunk = Frame::new("stream:chunk", &chunk);
    let (message, usage, stop_reason) = (message.into(), usage.into(), reason.as_str());
    let completed = CompletedJson { of, message, usage, stop_reason };
    vec![chunk, Frame::new("stream:complete", &completed)]
}

/// An answer was stopped.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamStopped")]
pub(super) struct StoppedJson<'a> {
    #[serde(flatten)]
    of: StreamOf<'a>,
    stopped_by: &'a str,
    /// What there was of it.
    content: &'a str,
}

pub(super) fn stopped(of: StreamOf<'_>, by: &UserId, content: &str) -> Frame {
    Frame::new("stream:stopped", &StoppedJson { of, stopped_by: by.as_str(), content })
}

/// An answer failed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StreamFailed")]
pub(super) struct FailedJson<'a> {
    #[serde(flatten)]
    of: StreamOf<'a>,
    error: ErrorJson<'a>,
}

pub(super) fn failed(of: StreamOf<'_>, error: &Error) -> Frame {
    let error = ErrorJson::new(error, Some("stream:request"));
    Frame::new("stream:error", &FailedJson { of, error })
}
